"""Lines for the server's log that come up while settings are read, before any log exists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

_LONGEST: Final = 1000  # characters of what somebody sent, in a line of ours


@dataclass(frozen=True, slots=True)
class Notice:
    """One log line; `logger` without the prefix `org.pytorch.serve.`, `level` as log4j writes it."""

    level: str
    logger: str
    message: str
    source: str = field(default="", compare=False)  # what it is about: `file:line`, ...; the message names it too


def printable(text: str, longest: int = _LONGEST) -> str:
    """What somebody sent, fit for one line: shortened, and without control characters or undecodable bytes."""
    shown = text if len(text) <= longest else f"{text[:longest]}..."
    return shown if shown.isprintable() else "".join(map(_printable, shown))


def _printable(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
