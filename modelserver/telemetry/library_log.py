"""What libraries log by Python's own means, in the server's log."""

from __future__ import annotations

import logging

from modelserver.telemetry.telemetry import Telemetry


class LibraryLog(logging.Handler):
    """Passes warnings of libraries on to the server's log; they would break into the console otherwise."""

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__(logging.WARNING)
        self._telemetry = telemetry

    def emit(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        level = {"WARNING": "WARN", "CRITICAL": "FATAL"}.get(record.levelname, record.levelname)
        self._telemetry.log(level, f"library.{record.name}", self.format(record))
