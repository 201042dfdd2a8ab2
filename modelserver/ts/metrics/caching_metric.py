"""The metric objects that `context.metrics` hands out."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Sequence

from modelserver.wire.frames import Metric as Update
from ts.metrics.dimension import Dimension
from ts.metrics.metric_abstract import MetricAbstract
from ts.metrics.metric_type_enum import MetricTypes

logger = logging.getLogger(__name__)

Outlet = Callable[[Update], None]


class CachingMetric(MetricAbstract):
    """Passes each update on at once: to `outlet` in a worker, else as a `[METRICS]` log line."""

    def __init__(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Sequence[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
        outlet: Outlet | None = None,
    ) -> None:
        super().__init__(metric_name, unit, dimension_names, metric_type)
        self._outlet = outlet

    def add_or_update(self, value: float, dimension_values: Sequence[str] = (), request_id: str = "") -> None:
        """Record a value; an update that does not fit the metric is logged as an error and dropped."""
        values = [str(dimension) for dimension in dimension_values]
        problem = self._problem(value, values)
        if problem:
            labels = ",".join(map(":".join, zip(self.dimension_names, values, strict=False)))
            logger.error(
                "Failed to update metric with name:%s and dimensions: %s with value: %s: %s",
                self.metric_name,
                labels,
                value,
                problem,
            )
        elif self._outlet is None:
            self.emit_metrics(
                request_id, value, ",".join(map(":".join, zip(self.dimension_names, values, strict=True)))
            )
        else:
            labels_of_update = list(zip(self.dimension_names, values, strict=True))
            self._outlet(
                Update(self.metric_name, self.unit, float(value), labels_of_update, self.metric_type.name, request_id)
            )

    def update(self, value: float, request_id: str = "", dimensions: Sequence[Dimension] = ()) -> None:
        """Record a value under other labels than before; they stay."""
        logger.warning("Overriding existing dimensions")
        self.dimension_names = [dimension.name for dimension in dimensions]
        self.add_or_update(value, [dimension.value for dimension in dimensions], request_id)

    def emit_metrics(self, request_id: str, value: float, dimension_string: str) -> None:
        """Log the line that the server reads from the output of a worker."""
        request = f",{request_id}" if request_id else ""
        logger.info(
            f"[METRICS]{self.metric_name}.{self.unit}:{value}|#{dimension_string}|#type:{self.metric_type.name}"
            f"|#hostname:{socket.gethostname()},{int(time.time())}{request}"
        )

    def _problem(self, value: float, dimension_values: list[str]) -> str:
        """Why an update cannot be recorded, "" if it can."""
        if len(dimension_values) != len(self.dimension_names):
            return f"Dimension values: {dimension_values} should correspond to Dimension names: {self.dimension_names}"
        try:
            number = float(value)
        except (TypeError, ValueError):
            return "value must be a number"
        if number < 0 and self.metric_type is MetricTypes.COUNTER:
            return "Counter metric update value cannot be negative"
        return ""
