"""A metric that formats itself as the server's text form; `emit_metrics` reports it."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from ts.metrics.dimension import Dimension
from ts.metrics.unit import full_name


class Metric:
    """One value that its owner updates: added up where `metric_method` is `counter`, replaced otherwise."""

    def __init__(
        self,
        name: str,
        value: float,
        unit: str,
        dimensions: Sequence[Dimension],
        request_id: str | None = None,
        metric_method: str | None = None,
    ) -> None:
        self.name = name
        self.value = value
        self.unit = full_name(unit)
        self.dimensions = dimensions
        self.request_id = request_id
        self.metric_method = metric_method

    def update(self, value: float) -> None:
        """Take a new value in."""
        self.value = self.value + value if self.metric_method == "counter" else value

    def reset(self) -> None:
        """Back to zero."""
        self.value = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": self.dimensions,
            "Timestamp": int(time.time()),
            "HostName": socket.gethostname(),
            "RequestId": self.request_id,
        }

    def __str__(self) -> str:
        dimensions = ",".join(map(str, self.dimensions))
        request = f",{self.request_id}" if self.request_id else ""
        origin = f"hostname:{socket.gethostname()},{int(time.time())}"
        return f"{self.name}.{self.unit}:{self.value}|#{dimensions}|#{origin}{request}"
