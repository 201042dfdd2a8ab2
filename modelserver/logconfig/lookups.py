"""The lookups of a log4j2 configuration: `${env:NAME:-default}`, `${sys:NAME}`, `${date:...}`, `${property}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

_DEPTH: Final = 20  # of lookups in the values of lookups
_MOST: Final = 1000  # lookups for one text: values that name others several times would grow without end


class Lookups:
    """Where the values come from. No other lookup is ever made, and none in the text of messages."""

    def __init__(
        self,
        environ: Mapping[str, str],
        system: Mapping[str, str],
        date: Callable[[str], str],
        properties: Mapping[str, str],
    ) -> None:
        """`system`: what `sys` finds; `date`: today by a Java pattern; `properties`: names to start with."""
        self._environ = environ
        self._system = system
        self._date = date
        self.properties = dict(properties)

    def resolve(self, text: str) -> str:
        """The text with its lookups replaced; `$${` is a lookup too.

        What is not known stays as it is, as do a name in its own value, and whatever is too deep or too much.
        """
        return _Resolution(self._find).resolve(text, ())

    def _find(self, name: str) -> str | None:
        kind, colon, key = name.partition(":")
        match kind.lower() if colon else "":
            case "env":
                return self._environ.get(key)
            case "sys":
                return self._system.get(key)
            case "date":
                return self._date(key)
        return self.properties.get(name)


class _Resolution:
    """Of one text."""

    def __init__(self, find: Callable[[str], str | None]) -> None:
        self._find = find
        self._made = 0  # lookups

    def resolve(self, text: str, names: tuple[str, ...]) -> str:
        """A part of it, which is in the values of these names."""
        if len(names) > _DEPTH:
            return text
        done, rest = "", text
        while (start := rest.find("${")) >= 0:
            end = _closing(rest, start)
            if end < 0:
                break
            done += rest[:start].removesuffix("$")
            done += self._value(rest[start + 2 : end], rest[start : end + 1], names)
            rest = rest[end + 1 :]
        return done + rest

    def _value(self, inner: str, whole: str, names: tuple[str, ...]) -> str:
        self._made += 1
        if self._made > _MOST:
            return whole
        name, separator, default = _split_default(inner)
        name = self.resolve(name, (*names, ""))
        if name in names:
            return whole
        found = self._find(name)
        if found is not None:
            return self.resolve(found, (*names, name))
        return self.resolve(default, (*names, "")) if separator else whole


def _closing(text: str, start: int) -> int:
    """Where the brace that opens behind `start` is closed; -1 if it is not."""
    depth = 0
    for place in range(start, len(text)):
        if text.startswith("${", place):
            depth += 1
        elif text[place] == "}":
            depth -= 1
            if not depth:
                return place
    return -1


def _split_default(inner: str) -> tuple[str, str, str]:
    """Name and default of a lookup, cut at the first `:-` outside of inner lookups."""
    depth = 0
    for place in range(len(inner)):
        if inner.startswith("${", place):
            depth += 1
        elif inner[place] == "}":
            depth -= 1
        elif not depth and inner.startswith(":-", place):
            return inner[:place], ":-", inner[place + 2 :]
    return inner, "", ""
