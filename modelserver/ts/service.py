"""`Service`: a loaded model that answers messages of the classic protocol; and names that handlers import from here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from ts.context import Context, RequestProcessor
from ts.protocol.codec import create_predict_response
from ts.utils.util import PredictionException, get_yaml_config
from ts.version import __version__

__all__ = [
    "PREDICTION_METRIC",
    "Context",
    "PredictionException",
    "RequestProcessor",
    "Service",
    "create_predict_response",
    "emit_metrics",
    "get_yaml_config",
]

PREDICTION_METRIC = "PredictionTime"

logger = logging.getLogger(__name__)


class Service:
    """An entry point with its context, as unit tests of handlers load it; the server's own workers have another."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any] | None,
        entry_point: Callable[[Any, Context], Any] | None,
        gpu: int | None,
        batch_size: int | None,
        limit_max_image_pixels: bool = True,
        metrics_cache: Any = None,
    ) -> None:
        config_file = (manifest or {}).get("model", {}).get("configFile")
        config = get_yaml_config(f"{model_dir}/{config_file}") if config_file else {}
        limited = limit_max_image_pixels
        self.entry_point: Any = entry_point
        self._context = Context(
            model_name, model_dir, manifest, batch_size, gpu, __version__, limited, metrics_cache, config
        )

    @property
    def context(self) -> Context:
        """The context that the entry point gets."""
        return self._context

    @staticmethod
    def retrieve_data_for_inference(
        batch: Iterable[dict[str, Any]] | None,
    ) -> tuple[list[RequestProcessor], list[dict[str, Any]], dict[int, str]]:
        """Headers and row of each request, and the ids by index. Raises `ValueError` where there is no batch."""
        if batch is None:
            raise ValueError("Received invalid inputs")
        requests = list(batch)
        ids = {index: request["requestId"].decode() for index, request in enumerate(requests)}
        rows = [{parameter["name"]: parameter["value"] for parameter in request["parameters"]} for request in requests]
        return [RequestProcessor(_headers(request)) for request in requests], rows, ids

    def set_cl_socket(self, cl_socket: Any) -> None:
        """Where pieces of streamed answers go, an object with `sendall`."""
        self._context.cl_socket = cl_socket

    def enter(self, batch: Iterable[dict[str, Any]] | None, context: Context) -> list[dict[str, Any]]:
        """`context` is that of these requests from now on. Returns their rows."""
        context.request_processor, rows, context.request_ids = self.retrieve_data_for_inference(batch)
        if context.metrics is not None:
            context.metrics.set_request_ids(context.request_ids)
        return rows

    def predict(self, batch: Iterable[dict[str, Any]]) -> bytes | None:
        """The encoded answer to decoded requests; None on ranks other than 0."""
        rows = self.enter(batch, self._context)
        started = time.perf_counter()
        try:
            result = self.entry_point(rows, self._context)
        except Exception as error:
            return refuse(self._context, *judge(error))
        return answer(self._context, result, time.perf_counter() - started)


def answer(context: Context, result: Any, seconds: float) -> bytes | None:
    """The encoded result of an entry point that took so long, or what is wrong with it."""
    ids = context.request_ids or {}
    if not isinstance(result, list):
        logger.error("model: %s, Invalid return type: %s.", context.model_name, type(result))
        return refuse(context, "Invalid model predict output", 503)
    if len(result) != len(ids):
        line = "model: %s, number of batch response mismatched, expect: %s, got: %s."
        logger.error(line, context.model_name, len(ids), len(result))
        return refuse(context, "number of batch response mismatched", 503)
    if context.metrics is not None:
        context.metrics.add_time(PREDICTION_METRIC, round(seconds * 1000, 2))
    return create_predict_response(result, ids, "Prediction success", 200, context)


def refuse(context: Context, message: str, code: int) -> bytes | None:
    """The same refusal for every request."""
    ids = context.request_ids or {}
    return create_predict_response(dict.fromkeys(ids, "error"), ids, message, code)


def judge(error: Exception) -> tuple[str, int]:
    """Message and code for a batch whose handler raised this, which the log tells."""
    if isinstance(error, MemoryError):
        line, verdict = "System out of memory", ("Out of resources", 507)
    elif isinstance(error, PredictionException):
        line, verdict = "Prediction error", (str(error.message), int(error.error_code))
    elif "CUDA" in str(error):
        line, verdict = "CUDA out of memory", ("Out of resources", 507)
    else:
        line, verdict = "Invoking custom service failed.", ("Prediction failed", 503)
    logger.error(line, exc_info=error)
    return verdict


def emit_metrics(metrics: Iterable[Any]) -> None:
    """Report each metric as a log line, which the server reads."""
    for metric in metrics:
        logger.info("[METRICS]%s", metric)


def _headers(request: dict[str, Any]) -> dict[str, Any]:
    """The content type of each parameter, then the headers."""
    types = {parameter["name"]: {"content-type": parameter["contentType"]} for parameter in request["parameters"]}
    return {**types, **{header["name"].decode(): header["value"].decode() for header in request["headers"] or ()}}
