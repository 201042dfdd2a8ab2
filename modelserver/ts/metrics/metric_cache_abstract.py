"""The metrics of a worker: the methods that handlers call as `context.metrics.<method>`."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ts.metrics.caching_metric import CachingMetric, Outlet
from ts.metrics.dimension import Dimension
from ts.metrics.metric_cache_errors import MetricsCacheKeyError, MetricsCacheTypeError, MetricsCacheValueError
from ts.metrics.metric_type_enum import MetricTypes

logger = logging.getLogger(__name__)


class MetricCacheAbstract(ABC):
    """Metrics by kind and name, made on first use or from definitions.

    An update of a metric that exists uses the label names it was made with: only their number has to fit.
    """

    def __init__(self, config_file_path: str | Path, outlet: Outlet | None = None) -> None:
        self.cache: dict[MetricTypes, dict[str, CachingMetric]] = {kind: {} for kind in MetricTypes}
        self.store: list[Any] = []
        self.request_ids: dict[int, str] | str | None = None
        self.model_name: str | None = None
        self.config_file_path = config_file_path
        self._outlet = outlet

    @abstractmethod
    def initialize_cache(self) -> None:
        """Make the metrics that the definitions name."""

    def set_request_ids(self, request_ids: dict[int, str] | str | None) -> None:
        """The requests that the next updates belong to: id by index in the batch, or one text."""
        self.request_ids = request_ids

    def cache_keys(self) -> list[str]:
        """`<kind>:<name>` of every metric."""
        return [f"{kind.value}:{name}" for kind, metrics in self.cache.items() for name in metrics]

    def add_counter(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        """Add to a counter of unit `count`."""
        self._record(MetricTypes.COUNTER, name, value, "count", idx, dimensions)

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Record a time in `ms` or `s`."""
        if unit not in ("ms", "s"):
            raise MetricsCacheValueError("the unit for a timed metric should be one of ['ms', 's']")
        self._record(metric_type, name, value, unit, idx, dimensions)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Record a size in `MB`, `kB`, `GB` or `B`."""
        if unit not in ("MB", "kB", "GB", "B"):
            raise ValueError("The unit for size based metric is one of ['MB','kB', 'GB', 'B']")
        self._record(metric_type, name, value, unit, idx, dimensions)

    def add_percent(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Record a value in percent."""
        self._record(metric_type, name, value, "percent", idx, dimensions)

    def add_error(self, name: str, value: float, dimensions: Sequence[Dimension] | None = None) -> None:
        """Add to a counter of errors, which belongs to no request."""
        labels = _with_defaults(dimensions, (("Level", "Error"),))
        self._metric(MetricTypes.COUNTER, name, "", labels).add_or_update(value, _values(labels))

    def add_metric(
        self,
        name: str,
        value: float,
        unit: str,
        idx: int | None = None,
        dimensions: Sequence[Dimension] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """Record a value of any kind and unit."""
        self._record(metric_type, name, value, unit, idx, dimensions)

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: list[str] | None = None,
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> CachingMetric:
        """Make a metric without a value, or replace one of the same kind and name. Raises `MetricsCacheTypeError`."""
        names = [] if dimension_names is None else dimension_names
        _check_name(metric_name, metric_type)
        if not isinstance(unit, str):
            raise MetricsCacheTypeError("`unit` must be a str")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise MetricsCacheTypeError("`dimension_names` should be a list of dimension name strings")
        metrics = self.cache[metric_type]
        if metric_name in metrics:
            logger.warning("Overriding existing key %s:%s", metric_type, metric_name)
        metrics[metric_name] = CachingMetric(metric_name, unit, names, metric_type, self._outlet)
        return metrics[metric_name]

    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> CachingMetric:
        """A metric that exists. Raises `MetricsCacheKeyError`, `MetricsCacheTypeError`."""
        _check_name(metric_name, metric_type)
        try:
            return self.cache[metric_type][metric_name]
        except KeyError:
            raise MetricsCacheKeyError(
                f"Metric of type '{metric_type}' and name '{metric_name}' doesn't exist"
            ) from None

    def _record(
        self,
        kind: MetricTypes,
        name: str,
        value: float,
        unit: str,
        idx: int | None,
        dimensions: Sequence[Dimension] | None,
    ) -> None:
        if self.request_ids:
            defaults: tuple[tuple[str, str], ...] = (("ModelName", str(self.model_name)), ("Level", "Model"))
        else:
            defaults = (("Level", "Error"),)
        labels = _with_defaults(dimensions, defaults)
        self._metric(kind, name, unit, labels).add_or_update(value, _values(labels), self._request_id(idx))

    def _metric(self, kind: MetricTypes, name: str, unit: str, labels: list[Dimension]) -> CachingMetric:
        metric = self.cache[kind].get(name) if isinstance(kind, MetricTypes) else None
        return metric or self.add_metric_to_cache(name, unit, [label.name for label in labels], kind)

    def _request_id(self, idx: int | None) -> str:
        """The id at `idx`, else all of them."""
        ids = self.request_ids
        if not isinstance(ids, dict):
            return ids or ""
        return ids[idx] if idx in ids else ",".join(ids.values())


def _with_defaults(dimensions: Sequence[Dimension] | None, defaults: Sequence[tuple[str, str]]) -> list[Dimension]:
    """The caller's labels, then those of the defaults that the caller did not name."""
    labels = list(dimensions or ())
    named = {label.name for label in labels}
    labels += [Dimension(name, value) for name, value in defaults if name not in named]
    return labels


def _values(labels: list[Dimension]) -> list[str]:
    return [label.value for label in labels]


def _check_name(metric_name: object, metric_type: object) -> None:
    if not isinstance(metric_name, str):
        raise MetricsCacheTypeError("`metric_name` must be a str")
    if not isinstance(metric_type, MetricTypes):
        raise MetricsCacheTypeError("`metric_type` must be a MetricTypes enum")
