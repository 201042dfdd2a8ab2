"""From the text of a setting to its value. Every parser raises ValueError with the text that operators read.

Booleans, numbers, addresses and paths are trimmed; strings and regular expressions keep their blanks.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from modelserver.settings.addresses import Address, parse_address
from modelserver.settings.notices import Notice

T = TypeVar("T")
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


def string(text: str) -> str:
    """The text as it is."""
    return text


def optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """A parser for which a blank text means unset."""

    def parse_optional(text: str) -> T | None:
        return parse(text) if text.strip() else None

    return parse_optional


def flag(text: str) -> bool:
    """True for `true` in any letter case, else False; anything but true and false is reported."""
    word = text.strip().lower()
    if word not in ("true", "false"):
        message = f'"{text}" is neither true nor false: taken as false'
        raise Tolerated(False, Notice("WARN", "util.ConfigManager", message))
    return word == "true"


def integer(
    minimum: int = -(2**31), maximum: int = 2**31 - 1, refusal: str = "must be at least {minimum}: {value}"
) -> Callable[[str], int]:
    """A parser of decimal integers. `refusal` is the text for a number below the minimum."""

    def parse_integer(text: str) -> int:
        digits = text.strip()
        value = int(digits) if _INTEGER.fullmatch(digits) and len(digits) < 30 else maximum + 1
        if not -maximum - 1 <= value <= maximum:
            raise ValueError(f'For input string: "{digits}"')
        if value < minimum:
            raise ValueError(refusal.format(minimum=minimum, value=value))
        return value

    return parse_integer


def long(minimum: int, refusal: str) -> Callable[[str], int]:
    """A parser of 64-bit integers."""
    return integer(minimum, 2**63 - 1, refusal)


def port(text: str) -> int:
    """A TCP port; 0 asks the kernel for a free one."""
    value = integer()(text)
    if not 0 <= value <= 65535:
        raise ValueError(f"Invalid port number: {value}")
    return value


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


def host(text: str) -> str:
    """A host name or IP address without scheme and port."""
    name = text.strip()
    if not name or re.search(r"[\s/\[\]]", name):
        raise ValueError(f"Invalid host: {name}")
    return name


def address(http_port: int, https_port: int) -> Callable[[str], Address]:
    """A parser of bind addresses with these default ports."""

    def parse(text: str) -> Address:
        return parse_address(text, http_port, https_port)

    return parse


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    return _compile(text, 0)


def patterns(text: str) -> tuple[re.Pattern[str], ...]:
    """Regular expressions without regard to letter case, separated by commas and trimmed."""
    return tuple(_compile(element, re.IGNORECASE) for element in csv(text))


def _compile(text: str, flags: int) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's doubts about `[[` are not the operator's
            return re.compile(text, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"Invalid regular expression: {text} ({error})") from None


def csv(text: str) -> tuple[str, ...]:
    """Trimmed elements separated by commas; empty ones are dropped."""
    return tuple(element.strip() for element in text.split(",") if element.strip())


def search_path(text: str) -> tuple[str, ...]:
    """Paths separated as in PATH; empty ones are dropped."""
    return tuple(element.strip() for element in text.split(os.pathsep) if element.strip())


def one_of(*words: str) -> Callable[[str], str]:
    """A parser that takes one of these words in any letter case and gives it as spelled here."""

    def parse(text: str) -> str:
        for word in words:
            if word.lower() == text.strip().lower():
                return word
        raise ValueError(f'"{text.strip()}" is none of {", ".join(words)}')

    return parse


log_level = one_of(*_LEVELS)


def metrics_mode(text: str) -> MetricsMode:
    """A metrics mode in any letter case, blanks ignored; anything else is LOG."""
    try:
        return MetricsMode(re.sub(r"\s", "", text).upper())
    except ValueError:
        message = (
            f'Configured metrics mode "{text}" not supported. Defaulting to "LOG" mode: use log, prometheus or legacy'
        )
        raise Tolerated(MetricsMode.LOG, Notice("ERROR", "util.ConfigManager", message)) from None


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
