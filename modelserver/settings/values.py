"""From the text of a setting to its value: one form per kind. Each raises ValueError with the text that operators read.

Booleans, numbers, addresses and paths are trimmed; strings and regular expressions keep their blanks.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

from modelserver.settings.addresses import Address, parse_address
from modelserver.settings.forms import Form, form
from modelserver.settings.notices import Notice

Pattern = re.Pattern[str]
Models = Mapping[str, Mapping[str, Mapping[str, object]]]  # model name -> version -> parameter -> value

_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_LEVELS: Final = ("OFF", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE", "ALL")


class MetricsMode(StrEnum):
    """Where metrics go: to the metric logs, to the scrape endpoint, or to the logs in the old form."""

    LOG = "LOG"
    PROMETHEUS = "PROMETHEUS"
    LEGACY = "LEGACY"


class Tolerated(ValueError):
    """A bad text that does not stop the start: `value` is used in its place and `notice` is logged."""

    def __init__(self, value: object, notice: Notice) -> None:
        super().__init__(notice.message)
        self.value = value
        self.notice = notice


@form("any text")
def string(text: str) -> str:
    """The text as it is."""
    return text


@form("true or false")
def flag(text: str) -> bool:
    """True for `true` in any letter case, else False; anything but true and false is reported."""
    word = text.strip().lower()
    if word not in ("true", "false"):
        message = f'"{text}" is neither true nor false: taken as false'
        raise Tolerated(False, Notice("WARN", "util.ConfigManager", message))
    return word == "true"


def integer(
    minimum: int = -(2**31), maximum: int = 2**31 - 1, refusal: str = "must be at least {minimum}: {value}"
) -> Form[int]:
    """Decimal integers. `refusal` is the text for a number below the minimum."""

    def parse_integer(text: str) -> int:
        digits = text.strip()
        value = int(digits) if _INTEGER.fullmatch(digits) and len(digits) < 30 else maximum + 1
        if not -maximum - 1 <= value <= maximum:
            raise ValueError(f'For input string: "{digits}"')
        if value < minimum:
            raise ValueError(refusal.format(minimum=minimum, value=value))
        return value

    return Form(_range(minimum, maximum), parse_integer)


def _range(minimum: int, maximum: int) -> str:
    """The numbers a setting takes, in words; the bounds of the machine are not worth any."""
    kind = "an integer" if maximum < 2**31 else "a 64-bit integer"
    return kind if minimum == -(2**31) else f"{kind} from {minimum}"


def long(minimum: int, refusal: str) -> Form[int]:
    """64-bit integers."""
    return integer(minimum, 2**63 - 1, refusal)


@form("a port from 0 to 65535")
def port(text: str) -> int:
    """A TCP port; 0 asks the kernel for a free one."""
    value = integer()(text)
    if not 0 <= value <= 65535:
        raise ValueError(f"Invalid port number: {value}")
    return value


@form("minutes, fractions allowed")
def minutes(text: str) -> float:
    """A positive number of minutes, fractions allowed; bad texts give 60."""
    try:
        value = float(text.replace("_", "?"))
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(text)
    except ValueError:
        notice = Notice("ERROR", "http.TokenAuthorization", "Token expiration not a valid integer")
        raise Tolerated(60.0, notice) from None
    return value


@form("a path")
def path(text: str) -> Path:
    """A path; relative ones are completed by the loader."""
    name = text.strip()
    try:
        valid = bool(name) and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise ValueError(f"Invalid path: {name!r}")
    return Path(name)


@form("a host name, an IP address or unix:/PATH")
def host(text: str) -> str:
    """A host name or IP address without scheme and port, or the path of a Unix socket behind `unix:`."""
    name = text.strip()
    if re.fullmatch(r"unix:/[^\0]+", name, re.IGNORECASE):
        return str(parse_address(name, 0, 0))
    if not name or re.search(r"[\s/\[\]]", name):
        raise ValueError(f"Invalid host: {name}")
    return name


def address(http_port: int, https_port: int) -> Form[Address]:
    """Bind addresses with these default ports."""

    def parse(text: str) -> Address:
        return parse_address(text, http_port, https_port)

    return Form("http://HOST[:PORT], https://HOST[:PORT] or unix:/PATH", parse)


@form("a regular expression")
def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    return _compile(text, 0)


@form("regular expressions, separated by commas")
def patterns(text: str) -> tuple[re.Pattern[str], ...]:
    """Regular expressions without regard to letter case, separated by commas and trimmed."""
    return tuple(_compile(element, re.IGNORECASE) for element in csv(text))


def _compile(text: str, flags: int) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's doubts about `[[` are not the operator's
            return re.compile(text, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"Invalid regular expression: {text} ({error})") from None


@form("words, separated by commas")
def csv(text: str) -> tuple[str, ...]:
    """Trimmed elements separated by commas; empty ones are dropped."""
    return tuple(element.strip() for element in text.split(",") if element.strip())


@form("paths, separated by colons")
def search_path(text: str) -> tuple[str, ...]:
    """Paths separated as in PATH; empty ones are dropped."""
    return tuple(element.strip() for element in text.split(os.pathsep) if element.strip())


def one_of(*words: str) -> Form[str]:
    """One of these words in any letter case, given as it is spelled here."""

    def parse(text: str) -> str:
        for word in words:
            if word.lower() == text.strip().lower():
                return word
        raise ValueError(f'Invalid value: "{text.strip()}"')

    return Form(f"{', '.join(words[:-1])} or {words[-1]}", parse)


log_level = one_of(*_LEVELS)


@form("log, prometheus or legacy")
def metrics_mode(text: str) -> MetricsMode:
    """A metrics mode in any letter case, blanks ignored; anything else is LOG."""
    try:
        return MetricsMode(re.sub(r"\s", "", text).upper())
    except ValueError:
        message = (
            f'Configured metrics mode "{text}" not supported. Defaulting to "LOG" mode: use log, prometheus or legacy'
        )
        raise Tolerated(MetricsMode.LOG, Notice("ERROR", "util.ConfigManager", message)) from None


@form('JSON, {"<model>": {"<version>": {"<option>": <value>}}}')
def models(text: str) -> Models:
    """The `models` property: a JSON object of three levels; a blank text is empty."""
    if not text.strip():
        return {}
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"models is not valid JSON: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError("models must be a JSON object")
    for name, versions in tree.items():
        if not isinstance(versions, dict) or not all(isinstance(entry, dict) for entry in versions.values()):
            raise ValueError(f'models["{name}"] must map versions to JSON objects')
    return tree
