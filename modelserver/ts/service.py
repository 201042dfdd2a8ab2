"""Names that handlers import from here."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from ts.context import Context, RequestProcessor
from ts.utils.util import PredictionException, get_yaml_config

PREDICTION_METRIC = "PredictionTime"

_logger = logging.getLogger(__name__)


def emit_metrics(metrics: Iterable[Any]) -> None:
    """Report each metric as a log line, which the server reads."""
    for metric in metrics:
        _logger.info("[METRICS]%s", metric)


__all__ = [
    "PREDICTION_METRIC",
    "Context",
    "PredictionException",
    "RequestProcessor",
    "emit_metrics",
    "get_yaml_config",
]
