"""Scalars of a model's YAML: what counts as an integer, and how warnings spell a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard


def is_integer(value: object) -> TypeGuard[int]:
    """True for 32-bit integers; booleans are none."""
    return isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31


def shown(value: object) -> str:
    """A value as log matchers know it: `null`, `true`, `[a, 1]`, `{k=v}`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{shown(key)}={shown(item)}" for key, item in value.items()) + "}"
    return str(value)
