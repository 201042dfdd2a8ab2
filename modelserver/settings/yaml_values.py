"""Scalars of a model's YAML: what counts as an integer, and how warnings spell a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeGuard

_LONGEST: Final = 300  # characters of a value that are shown


def is_integer(value: object) -> TypeGuard[int]:
    """True for 32-bit integers; booleans are none."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31


def shown(value: object) -> str:
    """A value as log matchers know it: `null`, `true`, `[a, 1]`, `{k=v}`.

    Cut when it gets long: by its anchors a YAML of a few lines may hold billions of elements, or itself.
    """
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > _LONGEST:
            return f"{text[:_LONGEST]}..."
    return text


def _pieces(value: object) -> Iterator[str]:
    """The text of a value, bit by bit, and of each collection before that of what it holds."""
    if isinstance(value, list | tuple):
        yield "["
        for index, item in enumerate(value):
            yield ", " if index else ""
            yield from _pieces(item)
        yield "]"
    elif isinstance(value, Mapping):
        yield "{"
        for index, (key, item) in enumerate(value.items()):
            yield f"{', ' if index else ''}{_scalar(key)}="
            yield from _pieces(item)
        yield "}"
    else:
        yield _scalar(value)


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and not is_integer(value):
        return str(value) if value.bit_length() < 1000 else hex(value)  # Python writes no decimals that are too long
    return str(value)
