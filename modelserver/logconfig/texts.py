"""The texts of a log4j2 configuration as values, and what has to be said about those that are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from modelserver.logconfig.elements import Element
from modelserver.logconfig.levels import level_named, level_rank
from modelserver.logconfig.lookups import Lookups
from modelserver.logconfig.plan import Complaint

_DIGITS: Final = 9  # of a number that means anything here


class Texts:
    """Attributes of elements with their lookups replaced."""

    def __init__(self, lookups: Lookups) -> None:
        self.lookups = lookups
        self.complaints: list[Complaint] = []

    def get(self, element: Element, name: str, default: str = "") -> str:
        """An attribute."""
        return self.resolve(element, element.get(name, default))

    def resolve(self, element: Element, text: str) -> str:
        """A text of an element."""
        if "${" not in text:
            return text
        found = self.lookups.resolve(text)
        if "${" in found:
            rest = found[found.index("${") :]
            self.complain(element, f"{rest} is not replaced: lookups are env, sys, date and properties")
        return found

    def number(self, element: Element, name: str, default: int) -> int:
        """A whole number."""
        text = self.get(element, name)
        if text.isdecimal() and len(text) <= _DIGITS:
            return int(text)
        if text:
            self.complain(element, f"{name}={text} is no number of at most {_DIGITS} digits, {default} is used")
        return default

    def flag(self, element: Element, name: str, *, default: bool) -> bool:
        """True or false; what is neither is the default."""
        text = self.get(element, name).lower()
        return text == "true" if text in ("true", "false") else default

    def level(self, element: Element) -> str | None:
        """The level of an element, None without one."""
        text = self.get(element, "level")
        if not text:
            return None
        level = level_named(text)
        if level is None:
            self.complain(element, f"{text} is no level")
        return level

    def lowest_level(self, element: Element, level: str | None = None) -> str | None:
        """The lowest level that passes: this one, or what filters in the element ask for."""
        thresholds = [self._threshold(each) for each in _filters(element)]
        return max([level or "ALL", *thresholds], key=level_rank) if thresholds else level

    def complain(self, element: Element, text: str) -> None:
        """Something about an element has no effect."""
        self.complaints.append(Complaint(f"{element.place}: {text}"))

    def _threshold(self, element: Element) -> str:
        usual = self.get(element, "onmatch", "NEUTRAL").upper() != "DENY"
        usual = usual and self.get(element, "onmismatch", "DENY").upper() == "DENY"
        if element.kind == "thresholdfilter" and usual:
            return self.level(element) or "ERROR"
        self.complain(element, f"<{element.kind}> has no effect")
        return "ALL"


def _filters(element: Element) -> Iterator[Element]:
    for child in element.children:
        if child.kind == "filters":
            yield from child.children
        elif child.kind.endswith("filter"):
            yield child
