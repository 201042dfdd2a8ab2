"""Lines for the server's log that come up while settings are read, before any log exists."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """One log line; `logger` without the prefix `org.pytorch.serve.`, `level` as log4j writes it."""

    level: str
    logger: str
    message: str
