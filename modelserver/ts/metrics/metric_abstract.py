"""What every kind of metric object offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes
from ts.metrics.unit import full_name


class MetricAbstract(ABC):
    """Name, unit, label names and kind of a metric; `unit` is stored under its full name."""

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        self.metric_name = metric_name
        self.unit = full_name(unit)
        self.dimension_names = list(dimension_names or ())
        self.metric_type = metric_type

    @abstractmethod
    def add_or_update(self, value: float, dimension_values: Sequence[str] = (), request_id: str = "") -> None:
        """Record a value under these labels."""

    @abstractmethod
    def update(self, value: float, request_id: str = "", dimensions: Sequence[Dimension] = ()) -> None:
        """Record a value under labels that replace those of the metric."""

    @abstractmethod
    def emit_metrics(self, request_id: str, value: float, dimension_string: str) -> None:
        """Report a value as a log line."""
