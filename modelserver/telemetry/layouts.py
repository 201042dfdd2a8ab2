"""What the appenders of a plan make of an event: a line by a pattern, JSON, or records for a query log."""

from __future__ import annotations

from typing import Protocol

import msgspec

from modelserver.telemetry.clock import Stamp


class LogEvent(msgspec.Struct, gc=False):
    """One event as layouts see it. `record` is what the event loop left of it, if one record makes several events."""

    stamp: Stamp
    level: str
    logger: str
    thread: str
    message: str
    record: object = None


class Layout(Protocol):
    """Renders events."""

    # Whether date and message appear in the text just as they are, each once, date first, and nothing else depends on
    # them. Such a text needs to be rendered only once for all events with the same level, logger and thread.
    plain: bool

    def render(self, event: LogEvent) -> str:
        """The text of an event with its end of line."""
