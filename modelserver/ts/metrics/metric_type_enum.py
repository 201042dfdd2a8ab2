"""Kinds of metrics."""

from __future__ import annotations

import enum


class MetricTypes(enum.Enum):
    """How updates of a metric combine."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
