"""Dates by the patterns of Java: `yyyy-MM-dd'T'HH:mm:ss,SSSXXX`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final

from modelserver.telemetry.clock import Stamp

_MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TOKEN: Final = re.compile(r"'((?:[^']|'')*)'|([A-Za-z])\2*|[^A-Za-z']+|'")
_ORDER: Final = ("", *"yMwdaHmsS")  # units from coarse to fine
_UNITS: Final = {
    **dict.fromkeys("ML", "M"),
    **dict.fromkeys("wWF", "w"),
    **dict.fromkeys("dDEu", "d"),
    **dict.fromkeys("HkKh", "H"),
    **dict.fromkeys("Sn", "S"),
    **dict(zip("yams", "yams", strict=True)),
}

_Piece = Callable[[datetime], str]


def local_time(stamp: Stamp) -> datetime:
    """The time that a stamp tells, with the offset of its zone."""
    naive = datetime.fromisoformat(stamp.date.replace(",", "."))
    seconds = naive.replace(microsecond=0) - datetime.fromtimestamp(int(stamp.seconds), UTC).replace(tzinfo=None)
    return naive.replace(tzinfo=timezone(seconds))


def zone_time(stamp: Stamp, zone: tzinfo) -> datetime:
    """The same moment in another zone."""
    time = datetime.fromtimestamp(int(stamp.seconds), zone)
    return time.replace(microsecond=int(stamp.milliseconds) % 1000 * 1000)


def date_format(pattern: str) -> Callable[[datetime], str]:
    """Texts of times by a pattern; letters that mean nothing stand for themselves."""
    pieces = [_piece(match) for match in _TOKEN.finditer(pattern)]
    return lambda time: "".join([piece(time) for piece in pieces])


def date_regex(pattern: str) -> str:
    """What matches any date of a pattern."""
    return "".join(_piece_regex(match) for match in _TOKEN.finditer(pattern))


def finest_unit(patterns: Iterable[str]) -> str:
    """The letter of the finest field in date patterns, one of `yMwdHmsS` (or `a`: half days); "" if there is none."""
    letters = {match[2] for pattern in patterns for match in _TOKEN.finditer(pattern) if match[2]}
    found = {_UNITS.get(letter, "") for letter in letters}
    return max(found, key=_ORDER.index, default="") if found - {""} else ""


def ordinal(time: datetime, unit: str) -> int:
    """The number of the unit (see `finest_unit`) that a time is in, counted from some start."""
    months = time.year * 12 + time.month - 1
    days = time.toordinal()
    seconds = days * 86400 + time.hour * 3600 + time.minute * 60 + time.second
    coarse = {"y": time.year, "M": months, "w": (days - 1) // 7, "d": days, "a": seconds // 43200}
    return {**coarse, "H": seconds // 3600, "m": seconds // 60, "s": seconds, "S": seconds}[unit]


def _piece(match: re.Match[str]) -> _Piece:
    text = _literal(match)
    if text is not None:
        return lambda time: text
    return _field(match[2], len(match[0]))


def _literal(match: re.Match[str]) -> str | None:
    if match[1] is not None:
        return match[1].replace("''", "'") or "'"  # two quotes are one, inside of a quotation and outside
    return None if match[2] else match[0]


def _piece_regex(match: re.Match[str]) -> str:
    text = _literal(match)
    if text is not None:
        return re.escape(text)
    if match[2] in "yudDHkhKmsSwW" and not (match[2] == "u" and len(match[0]) > 1):
        return r"\d+"
    return r"\d+" if match[2] in "ML" and len(match[0]) < 3 else r"[\w+:-]+"


def _field(letter: str, width: int) -> _Piece:
    if letter in _NUMBERS:
        number = _NUMBERS[letter]
        return lambda time: f"{number(time):0{width}d}"
    if letter in _TEXTS:
        text = _TEXTS[letter]
        return lambda time: text(time, width)
    return lambda time: letter * width


def _year(time: datetime, width: int) -> str:
    return f"{time.year % 100:02d}" if width == 2 else f"{time.year:0{width}d}"


def _month(time: datetime, width: int) -> str:
    if width < 3:
        return f"{time.month:0{width}d}"
    return _MONTHS[time.month - 1][: 3 if width == 3 else None]


def _day(time: datetime, width: int) -> str:
    return _DAYS[time.weekday()][: 3 if width < 4 else None]


def _nanoseconds(time: datetime, width: int) -> str:
    return f"{time.microsecond:06d}000"[:width]


def _offset(time: datetime, colon: str) -> str:
    minutes = int((time.utcoffset() or timedelta()).total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02d}{colon}{abs(minutes) % 60:02d}"


def _iso_offset(time: datetime, width: int) -> str:
    if not time.utcoffset():
        return "Z"
    return _offset(time, "")[:3] if width == 1 else _offset(time, ":" if width == 3 else "")


def _zone_name(time: datetime, width: int) -> str:
    return time.tzname() or "UTC"


_NUMBERS: Final[dict[str, Callable[[datetime], int]]] = {
    "d": lambda time: time.day,
    "D": lambda time: time.timetuple().tm_yday,
    "H": lambda time: time.hour,
    "k": lambda time: time.hour or 24,
    "h": lambda time: time.hour % 12 or 12,
    "K": lambda time: time.hour % 12,
    "m": lambda time: time.minute,
    "s": lambda time: time.second,
    "S": lambda time: time.microsecond // 1000,
    "u": lambda time: time.isoweekday(),
    "w": lambda time: time.isocalendar().week,
    "W": lambda time: (time.day + 6) // 7,
    "F": lambda time: (time.day + 6) // 7,
}
_TEXTS: Final[dict[str, Callable[[datetime, int], str]]] = {
    "y": _year,
    "M": _month,
    "L": _month,
    "E": _day,
    "n": _nanoseconds,
    "a": lambda time, width: "AM" if time.hour < 12 else "PM",
    "X": _iso_offset,
    "x": lambda time, width: _offset(time, ":" if width == 3 else "")[: 3 if width == 1 else None],
    "Z": lambda time, width: _offset(time, ""),
    "z": _zone_name,
}
