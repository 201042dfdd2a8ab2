"""Lines by the patterns of log4j2: `%d{ISO8601} [%-5p] %t %c - %m%n`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from modelserver.telemetry.converters import CHANGING, CONVERTERS, DATES, MESSAGES, STYLES, Converter
from modelserver.telemetry.layouts import LogEvent

_PIECE: Final = re.compile(
    r"%(?P<left>-)?(?P<zero>0)?(?P<least>\d+)?(?:\.(?P<head>-)?(?P<most>\d+))?(?P<name>[A-Za-z]+)|%%|[^%]+|%"
)


_DEEPEST: Final = 20  # patterns in patterns; what is below is text
_WIDEST: Final = 10_000  # characters that a text is padded to
_DIGITS: Final = 9  # of a width


class Pattern:
    """A compiled pattern; see `Layout` for what `plain` means."""

    def __init__(self, pattern: str, depth: int = 0) -> None:
        """`depth`: in how many others it is."""
        reader = _Reader(pattern, depth)
        self._converters = list(reader.pieces())
        self.plain = reader.plain

    def render(self, event: LogEvent) -> str:
        """The line of an event."""
        return "".join([convert(event) for convert in self._converters])


class _Reader:
    """Reads one pattern from left to right."""

    def __init__(self, pattern: str, depth: int) -> None:
        self._pattern = pattern
        self._depth = depth
        self._position = 0
        self._inner: dict[str, Pattern] = {}
        self.plain = True

    def pieces(self) -> Iterator[Converter]:
        """What makes the pieces of a line."""
        while match := _PIECE.match(self._pattern, self._position):
            self._position = match.end()
            name = _known_name(match["name"] or "")
            if name and self._depth <= _DEEPEST:
                self._position = match.start("name") + len(name)
                yield self._conversion(name, match)
            else:
                yield _literal("%" if match[0] == "%%" else match[0])

    def _conversion(self, name: str, match: re.Match[str]) -> Converter:
        options = list(self._options())
        sized = bool(match["least"] or match["most"])
        self.plain = self.plain and self._keeps_plain(name, options, sized=sized)
        convert = CONVERTERS[name](options, lambda pattern: self._nested(pattern).render)
        return _resized(convert, match) if sized else convert

    def _nested(self, pattern: str) -> Pattern:
        """One that stands in braces."""
        if pattern not in self._inner:
            self._inner[pattern] = Pattern(pattern, self._depth + 1)
        return self._inner[pattern]

    def _keeps_plain(self, name: str, options: Sequence[str], *, sized: bool) -> bool:
        if name in DATES:
            return options == ["ISO8601"] and not sized
        if name in MESSAGES:
            return not sized
        if name in STYLES:
            return not options or (self._nested(options[0]).plain and not sized)
        return name not in CHANGING

    def _options(self) -> Iterator[str]:
        """The texts of `{...}` that follow; braces inside of them come in pairs."""
        while self._pattern.startswith("{", self._position):
            end = _closing(self._pattern, self._position)
            if end < 0:
                return  # never closed: a literal
            yield self._pattern[self._position + 1 : end]
            self._position = end + 1


def _known_name(letters: str) -> str:
    """The longest name that these letters begin with, "" if there is none: `%mfoo` is the message, then `foo`."""
    prefixes = (letters[:length] for length in range(len(letters), 0, -1))
    return next((prefix for prefix in prefixes if prefix in CONVERTERS), "")


def _closing(pattern: str, start: int) -> int:
    depth = 0
    for place in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if not depth:
            return place
    return -1


def _literal(text: str) -> Converter:
    return lambda event: text


def _width(digits: str | None, absent: int) -> int:
    return int(digits[:_DIGITS]) if digits else absent


def _resized(convert: Converter, match: re.Match[str]) -> Converter:
    """Padded to a width, or cut to another, as `%-5.30p` asks for."""
    least, most = min(_width(match["least"], 0), _WIDEST), _width(match["most"], 1 << 30)
    left, head, fill = match["left"], match["head"], "0" if match["zero"] else " "

    def resize(event: LogEvent) -> str:
        text = convert(event)
        if len(text) > most:  # what has been cut is not padded, observed
            return text[:most] if head else text[len(text) - most :]
        return text.ljust(least) if left else text.rjust(least, fill)

    return resize
