"""Urls of archives: which are allowed, and which could be read in two ways and are refused for that."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from modelserver.errors import ConfigurationError

_AUTHORITY: Final = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?", re.IGNORECASE)
_AMBIGUOUS: Final = re.compile(r"[\x00-\x20\x7f\\]")


class AllowedUrls:
    """Regular expressions; one of them must match a url as a whole, whatever its case."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [_compile(pattern) for pattern in patterns]

    def admit(self, url: str) -> bool:
        """Whether a model may come from there."""
        return any(pattern.fullmatch(url) for pattern in self._patterns)


def check_web_url(url: str) -> None:
    """Raises ValueError unless everybody who reads the url finds the same host and the same path in it.

    A pattern is matched with the text, the connection is made to the host: nothing may make these two differ.
    """
    if _AMBIGUOUS.search(url):
        raise ValueError("the URL contains blanks, control characters or backslashes")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("the URL contains user information")
    if not _AUTHORITY.fullmatch(parts.netloc):
        raise ValueError(f"the URL names no valid host: {parts.netloc!r}")
    if ".." in unquote(parts.path):
        raise ValueError("the path of the URL leads upwards")


def file_path(url: str) -> str:
    """The path that a `file://` url names. Raises ValueError unless it is one of this machine."""
    parts = urlsplit(url)
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError(f"a file on another machine: {parts.netloc!r}")
    path = unquote(parts.path)
    if ".." in path or "\0" in path:
        raise ValueError("the path of the URL leads upwards, or holds a null byte")
    return path


def redirected(url: str, location: str, allowed: AllowedUrls) -> str:
    """Where a redirect leads. Raises ValueError if it may not be followed."""
    target = urljoin(url, quote(location.strip(), safe=string.punctuation, encoding="iso-8859-1"))
    scheme = urlsplit(target).scheme
    named = without_query(target)
    if scheme not in ("http", "https"):
        raise ValueError(f"redirected to {named}: neither http nor https")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise ValueError(f"redirected to {named}: from https to http")
    if not allowed.admit(target):
        raise ValueError(f"redirected to {named}: that does not match any allowed URL(s)")
    return target


def without_query(url: str) -> str:
    """The url as it may be shown: what follows the path is often a signature."""
    return re.split("[?#]", url, maxsplit=1)[0]


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigurationError(f"allowed_urls: {pattern!r} is not a regular expression: {error}") from error
