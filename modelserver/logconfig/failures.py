"""Failures of handlers that the configuration brings: told on standard error, since the log itself is what fails."""

from __future__ import annotations

import sys
import time
from typing import Final

REMINDER: Final = 3600.0  # seconds between two reports


class Failures:
    """What fails in one place. It may fail for every line, and is reported once an hour."""

    def __init__(self, place: object) -> None:
        self._place = place
        self._quiet_until = 0.0

    def report(self, *_: object) -> None:
        """Called while the exception is handled."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + REMINDER
            print(f"{self._place!r} cannot log: {reason(sys.exception() or Exception())}", file=sys.stderr, flush=True)


def reason(error: BaseException) -> str:
    """An error and what it came from, in one line."""
    reasons = [f"{type(error).__name__}: {error}"]
    if error.__cause__ is not None:
        reasons.append(reason(error.__cause__))
    return "; ".join(" ".join(each.split()) for each in reasons)
