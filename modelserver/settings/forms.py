"""What the text of a setting must look like: in words for operators, as a parser for the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Form(Generic[T_co]):
    """A kind of text."""

    words: str  # completes "expected ..."
    parse: Callable[[str], T_co]  # raises ValueError with the text that operators read

    def __call__(self, text: str) -> T_co:
        return self.parse(text)


def form(words: str) -> Callable[[Callable[[str], T]], Form[T]]:
    """Makes a form of a parser."""
    return lambda parse: Form(words, parse)


def optional(inner: Form[T]) -> Form[T | None]:
    """A form in which a blank text means unset."""

    def parse_optional(text: str) -> T | None:
        return inner(text) if text.strip() else None

    return Form(inner.words, parse_optional)
