"""`MetricsStore`: an older form of `context.metrics`, which keeps what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ts.metrics.dimension import Dimension
from ts.metrics.metric import Metric


class MetricsStore:
    """Metrics in the order of their first use (`store`), and by name, unit, requests and labels (`cache`)."""

    def __init__(self, request_ids: dict[int, str] | None, model_name: str | None) -> None:
        self.store: list[Metric] = []
        self.cache: dict[str, Metric] = {}
        self.request_ids = request_ids
        self.model_name = model_name

    def add_counter(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        """Add to a counter."""
        self._add_or_update(name, value, self._get_req(idx), "count", "counter", dimensions)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Record a time in `ms` or `s`."""
        if unit not in ("ms", "s"):
            raise ValueError("the unit for a timed metric should be one of ['ms', 's']")
        self._add_or_update(name, value, self._get_req(idx), unit, None, dimensions)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Record a size in `MB`, `kB`, `GB` or `B`."""
        if unit not in ("MB", "kB", "GB", "B"):
            raise ValueError("The unit for size based metric is one of ['MB','kB', 'GB', 'B']")
        self._add_or_update(name, value, self._get_req(idx), unit, None, dimensions)

    def add_percent(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        """Record a value in percent."""
        self._add_or_update(name, value, self._get_req(idx), "percent", None, dimensions)

    def add_error(self, name: str, value: Any, dimensions: Sequence[Dimension] | None = None) -> None:
        """Record an error, which belongs to no request; `value` may be text."""
        self._add_or_update(name, value, None, "", None, dimensions)

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Record a value of any unit."""
        self._add_or_update(name, value, self._get_req(idx), unit, None, dimensions)

    def _get_req(self, idx: int | None) -> str | None:
        """The id at `idx`, else all of them."""
        ids = self.request_ids or {}
        return ids[idx] if idx in ids else ",".join(ids.values())

    def _add_or_update(
        self,
        name: str,
        value: Any,
        req_id: str | None,
        unit: str,
        metrics_method: str | None = None,
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        if req_id is None:
            own = [Dimension("Level", "Error")]
        else:
            own = [Dimension("ModelName", str(self.model_name)), Dimension("Level", "Model")]
        labels = [*(dimensions or ()), *own]
        key = "-".join([name, unit, str(req_id), *map(str, labels)])
        if key in self.cache:
            self.cache[key].update(value)
            return
        self.cache[key] = Metric(name, value, unit, labels, req_id, metrics_method)
        self.store.append(self.cache[key])
