"""What a look at the machine leaves: its metrics."""

from __future__ import annotations

from typing import Final

from modelserver.telemetry.records import HostReadings
from modelserver.telemetry.scribe import Scribe

_THREAD: Final = "system-metrics"


class HostLines:
    """Expands readings of the machine; those that no definition names are dropped."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe

    def write(self, record: HostReadings) -> None:
        """Update the metrics."""
        for name, value, labels in record.readings:
            self._scribe.update_server(name, labels, value, record.moment, _THREAD)
