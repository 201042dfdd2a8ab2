"""What the endpoints of metrics need from telemetry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelserver.dialect import ports


class Telemetry(ports.Telemetry, Protocol):
    """The part of telemetry that REST calls."""

    async def scrape(self, names: Sequence[str], *, openmetrics: bool = False) -> bytes:
        """The exposition text; with names, only the samples named so."""
