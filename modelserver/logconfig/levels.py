"""Log levels by their log4j names."""

from __future__ import annotations

from typing import Final

RANKS: Final = {"ALL": 0, "TRACE": 1, "DEBUG": 2, "INFO": 3, "WARN": 4, "ERROR": 5, "FATAL": 6, "OFF": 7}
_FOREIGN: Final = {"WARNING": "WARN", "CRITICAL": "FATAL"}


def level_named(text: str) -> str | None:
    """The level that a text names in any letter case, Python's names included; None if there is no such level."""
    name = text.strip().upper()
    name = _FOREIGN.get(name, name)
    return name if name in RANKS else None


def level_rank(level: str) -> int:
    """How grave a level is; an unknown one counts as INFO."""
    return RANKS[level_named(level) or "INFO"]
