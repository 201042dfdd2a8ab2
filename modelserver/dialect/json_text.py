"""JSON as the server writes it."""

from __future__ import annotations

import json
from typing import Any


def json_text(value: Any) -> str:
    """Two-space indentation, members that are null left out, everything but control characters as it is."""
    return json.dumps(_without_nulls(value), indent=2, ensure_ascii=False)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(element) for element in value]
    return value
