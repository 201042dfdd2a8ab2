"""Paths and queries as the contract reads them: decoded first, split afterwards."""

from __future__ import annotations

import re
import urllib.parse

from modelserver.errors import BadRequest

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})(.{0,2})", re.DOTALL)
_SEPARATOR = re.compile(rb"[&;]")


def unescape(text: bytes) -> bytes:
    """Percent-decoded bytes. Raises BadRequest on a bad escape."""
    if b"%" not in text:
        return text
    if (bad := _BAD_ESCAPE.search(text)) is not None:
        escape, whole = bad.group(1).decode("latin-1"), text.decode("latin-1")
        raise BadRequest(f"invalid hex byte '{escape}' at index {bad.start() + 1} of '{whole}'")
    return urllib.parse.unquote_to_bytes(text)


def split_path(raw_path: bytes) -> list[str]:
    """Segments of a path without its trailing empty ones; `/` has none. Raises BadRequest on a bad escape."""
    segments = unescape(raw_path).decode("utf-8", "replace").split("/")[1:]
    while segments and not segments[-1]:
        segments.pop()
    return segments


def parse_query(query: bytes) -> list[tuple[str, str]]:
    """(name, value) in order of appearance; `&` and `;` separate. Raises BadRequest on a bad escape."""
    pairs = []
    for field in _SEPARATOR.split(query):
        if field:
            name, _, value = field.replace(b"+", b" ").partition(b"=")
            pairs.append((unescape(name).decode("utf-8", "replace"), unescape(value).decode("utf-8", "replace")))
    return pairs
