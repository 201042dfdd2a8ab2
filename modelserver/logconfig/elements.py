"""The tree of a log4j2 configuration, whichever syntax it was written in; names are compared in lower case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

DEEPEST: Final = 50  # elements in elements; what reads them calls itself for each


class Malformed(Exception):
    """A document that cannot be read at all."""


@dataclass
class Element:
    """One node. `kind` and the names of attributes are in lower case, `place` says where it stands in the document."""

    kind: str
    place: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def get(self, name: str, default: str = "") -> str:
        """An attribute, which may also be written as a child with text, or with a `value`."""
        if name in self.attributes:
            return self.attributes[name]
        for child in self.children:
            if child.kind == name and not child.children:
                return child.attributes.get("value", child.text.strip())
        return default

    def all(self, *kinds: str) -> Iterator[Element]:
        """The children of these kinds."""
        return (child for child in self.children if child.kind in kinds)

    def first(self, *kinds: str) -> Element | None:
        """The first child of these kinds."""
        return next(self.all(*kinds), None)
