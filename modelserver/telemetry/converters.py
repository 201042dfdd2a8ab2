"""The conversions of log4j2's patterns by name: what each makes of an event, given the texts in its braces."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from modelserver.telemetry.clock import Stamp
from modelserver.telemetry.java_dates import date_format, local_time, zone_time
from modelserver.telemetry.layouts import LogEvent

Converter = Callable[[LogEvent], str]
Nested = Callable[[str], Converter]  # makes a converter of a whole pattern, for conversions that hold one
Make = Callable[[Sequence[str], Nested], Converter]

DATES: Final = ("d", "date")
MESSAGES: Final = ("m", "msg", "message")
STYLES: Final = ("highlight", "style")
_ENCODED: Final = ("enc", "encode")
_SHORTENED: Final = ("maxLen", "maxLength")
_NOT_EMPTY: Final = ("notEmpty", "varsNotEmpty", "variablesNotEmpty")
_EQUAL: Final = ("equals", "equalsIgnoreCase")
_SINCE_START: Final = ("r", "relative")
_NUMBERED: Final = ("sn", "sequenceNumber")
_UNIQUE: Final = ("u", "uuid")
_NANOSECONDS: Final = ("N", "nano")
# Those whose text depends on more than level, logger and thread.
CHANGING: Final = frozenset(
    ("replace", *_ENCODED, *_SHORTENED, *_NOT_EMPTY, *_EQUAL, *_SINCE_START, *_NUMBERED, *_UNIQUE, *_NANOSECONDS)
)

_ISO: Final = "yyyy-MM-dd'T'HH:mm:ss,SSS"
_NAMED_DATES: Final = {
    "DEFAULT": "yyyy-MM-dd HH:mm:ss,SSS",
    "DEFAULT_PERIOD": "yyyy-MM-dd HH:mm:ss.SSS",
    "DEFAULT_MICROS": "yyyy-MM-dd HH:mm:ss,nnnnnn",
    "DEFAULT_NANOS": "yyyy-MM-dd HH:mm:ss,nnnnnnnnn",
    "ABSOLUTE": "HH:mm:ss,SSS",
    "ABSOLUTE_PERIOD": "HH:mm:ss.SSS",
    "COMPACT": "yyyyMMddHHmmssSSS",
    "DATE": "dd MMM yyyy HH:mm:ss,SSS",
    "DATE_PERIOD": "dd MMM yyyy HH:mm:ss.SSS",
    "ISO8601": _ISO,
    "ISO8601_BASIC": "yyyyMMdd'T'HHmmss,SSS",
    "ISO8601_BASIC_PERIOD": "yyyyMMdd'T'HHmmss.SSS",
    "ISO8601_PERIOD": "yyyy-MM-dd'T'HH:mm:ss.SSS",
    "ISO8601_OFFSET_DATE_TIME_HH": f"{_ISO}x",
    "ISO8601_OFFSET_DATE_TIME_HHMM": f"{_ISO}xx",
    "ISO8601_OFFSET_DATE_TIME_HHCMM": f"{_ISO}xxx",
    "US_MONTH_DAY_YEAR2_TIME": "dd/MM/yy HH:mm:ss.SSS",
    "US_MONTH_DAY_YEAR4_TIME": "dd/MM/yyyy HH:mm:ss.SSS",
}
_OFFSET: Final = re.compile(r"(?:GMT|UTC)?(?P<sign>[+-])(?P<hours>\d{1,2}):?(?P<minutes>\d\d)?")
_ELLIPSIS_FROM: Final = 20  # shorter limits leave no room for it


def abbreviate(name: str, precision: str) -> str:
    """A dotted name by log4j's precision: `1` keeps the last part, `-1` drops the first, `1.` keeps first letters."""
    parts = name.split(".")
    if re.fullmatch(r"-?\d+", precision):
        count = int(precision) or 1
        return ".".join(parts[-count:]) if len(parts) > abs(count) else name
    widths = precision.rstrip(".").split(".")
    short = [_shortened(part, widths[min(index, len(widths) - 1)]) for index, part in enumerate(parts[:-1])]
    return ".".join([*short, parts[-1]])


def _shortened(part: str, width: str) -> str:
    """`2~`: two letters, and `~` for the rest."""
    digits = re.match(r"\d*", width)
    assert digits is not None
    return part[: int(digits[0] or 0)] + width[digits.end() :]


def _fixed(text: str) -> Make:
    return lambda options, nested: lambda event: text


def _inner(options: Sequence[str], nested: Nested) -> Converter:
    """The pattern in the first braces, whatever else there is."""
    return nested(options[0] if options else "")


def _date(options: Sequence[str], nested: Nested) -> Converter:
    kind = options[0] if options else "DEFAULT"
    zone = _zone(options[1]) if len(options) > 1 else None
    match kind:
        case "UNIX":
            return lambda event: event.stamp.seconds
        case "UNIX_MILLIS":
            return lambda event: event.stamp.milliseconds
        case "ISO8601" if zone is None:
            return lambda event: event.stamp.date
    return _Dated(_NAMED_DATES.get(kind, kind), zone).convert


def _zone(name: str) -> tzinfo:
    try:
        if match := _OFFSET.fullmatch(name):
            offset = timedelta(hours=int(match["hours"]), minutes=int(match["minutes"] or 0))
            return timezone(-offset if match["sign"] == "-" else offset)  # ValueError: of a day or more
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC  # what Java takes for names that it does not know


class _Dated:
    """Texts of dates; events of the same millisecond, which come together, share one."""

    def __init__(self, pattern: str, zone: tzinfo | None) -> None:
        self._format = date_format(pattern)
        self._zone = zone
        self._last: Stamp | None = None
        self._text = ""

    def convert(self, event: LogEvent) -> str:
        """The date of an event."""
        if event.stamp is not self._last:
            moment = local_time(event.stamp) if self._zone is None else zone_time(event.stamp, self._zone)
            self._last, self._text = event.stamp, self._format(moment)
        return self._text


def _level(options: Sequence[str], nested: Nested) -> Converter:
    """`%p{WARN=W, length=3, lowerCase=true}`."""
    settings = [setting.partition("=") for option in options for setting in option.split(",")]
    given = {name.strip().upper(): value.strip() for name, _, value in settings}
    width = int(length) if (length := given.get("LENGTH", "")).isdecimal() else None
    lower = given.get("LOWERCASE", "").lower() == "true"

    def convert(event: LogEvent) -> str:
        text = given.get(event.level, event.level)[:width]
        return text.lower() if lower else text

    return convert


def _thread(options: Sequence[str], nested: Nested) -> Converter:
    return lambda event: event.thread


def _logger(options: Sequence[str], nested: Nested) -> Converter:
    if not options:
        return lambda event: event.logger
    return lambda event: abbreviate(event.logger, options[0].strip())


def _message(options: Sequence[str], nested: Nested) -> Converter:
    return lambda event: event.message


def _context(empty: str) -> Make:
    """Of a request's context, which nobody fills here: all of it, or one value."""
    return lambda options, nested: lambda event: "" if options else empty


def _encoded(options: Sequence[str], nested: Nested) -> Converter:
    encode = _ENCODINGS.get(options[1].upper() if len(options) > 1 else "HTML", _escape_html)
    inner = _inner(options, nested)
    return lambda event: encode(inner(event))


def _escape_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _escape_xml(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&apos;")


def _escape_html(text: str) -> str:
    return _escape_line_ends(_escape_xml(text).replace("/", "&#x2F;"))


def _escape_line_ends(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


_ENCODINGS: Final[dict[str, Callable[[str], str]]] = {
    "JSON": _escape_json,
    "HTML": _escape_html,
    "XML": _escape_xml,
    "CRLF": _escape_line_ends,
}


def _replaced(options: Sequence[str], nested: Nested) -> Converter:
    inner = _inner(options, nested)
    if len(options) < 3:
        return inner
    try:
        regex = re.compile(options[1])
        replacement = re.sub(r"\$(\d+)", r"\\g<\1>", options[2])
        regex.sub(replacement, "")
    except (re.error, IndexError):
        return inner  # a regular expression of Java's own
    return lambda event: regex.sub(replacement, inner(event))


def _limited(options: Sequence[str], nested: Nested) -> Converter:
    inner = _inner(options, nested)
    limit = int(options[1]) if len(options) > 1 and options[1].isdecimal() else 100
    ellipsis = "..." if limit > _ELLIPSIS_FROM else ""

    def convert(event: LogEvent) -> str:
        text = inner(event)
        return text if len(text) <= limit else text[:limit] + ellipsis

    return convert


def _not_empty(options: Sequence[str], nested: Nested) -> Converter:
    """Nothing, where all that varies in a pattern is empty."""
    inner = _inner(options, nested)
    fixed = re.sub(r"%[-.\d]*[A-Za-z]+(\{[^}]*\})*", "", options[0] if options else "")
    return lambda event: "" if (text := inner(event)) == fixed else text


def _equal(key: Callable[[str], str]) -> Make:
    """Another text where a pattern comes to a certain one."""

    def make(options: Sequence[str], nested: Nested) -> Converter:
        inner = _inner(options, nested)
        if len(options) < 3:
            return inner
        other = nested(options[2])
        return lambda event: other(event) if key(text := inner(event)) == key(options[1]) else text

    return make


def _since_start(options: Sequence[str], nested: Nested) -> Converter:
    start = time.time_ns() // 1_000_000
    return lambda event: str(max(0, int(event.stamp.milliseconds) - start))


def _number(options: Sequence[str], nested: Nested) -> Converter:
    count = iter(range(1, 1 << 62))
    return lambda event: str(next(count))


def _unique(options: Sequence[str], nested: Nested) -> Converter:
    return lambda event: str(uuid.uuid4())


def _nanoseconds(options: Sequence[str], nested: Nested) -> Converter:
    return lambda event: str(time.monotonic_ns())


CONVERTERS: Final[dict[str, Make]] = {
    **dict.fromkeys(DATES, _date),
    **dict.fromkeys(("p", "level"), _level),
    **dict.fromkeys(("t", "tn", "thread", "threadName"), _thread),
    **dict.fromkeys(("c", "logger"), _logger),
    **dict.fromkeys(MESSAGES, _message),
    "n": _fixed("\n"),
    "replace": _replaced,
    **dict.fromkeys(STYLES, _inner),
    **dict.fromkeys(_ENCODED, _encoded),
    **dict.fromkeys(_SHORTENED, _limited),
    **dict.fromkeys(_NOT_EMPTY, _not_empty),
    "equals": _equal(str),
    "equalsIgnoreCase": _equal(str.lower),
    **dict.fromkeys(("pid", "processId"), _fixed(str(os.getpid()))),
    **dict.fromkeys(_SINCE_START, _since_start),
    **dict.fromkeys(_NUMBERED, _number),
    **dict.fromkeys(_UNIQUE, _unique),
    **dict.fromkeys(_NANOSECONDS, _nanoseconds),
    **dict.fromkeys(("X", "mdc", "MDC"), _context("{}")),
    **dict.fromkeys(("x", "NDC"), _context("[]")),
    **dict.fromkeys(("K", "map", "MAP", "marker", "markerSimpleName"), _context("")),
    # Tracebacks are part of the message, and nobody knows the lines of code that log.
    **dict.fromkeys(("ex", "exception", "throwable", "rEx", "rException", "rThrowable"), _fixed("")),
    **dict.fromkeys(("xEx", "xException", "xThrowable", "l", "location", "fqcn"), _fixed("")),
    **dict.fromkeys(("C", "class", "M", "method", "L", "line", "F", "file"), _fixed("?")),
}
