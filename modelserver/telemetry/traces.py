"""A trace of every prediction, made when it is over: where it waited, which worker had it, how long the handler took.

What is sampled, where it is sent and what the service is called is told by the standard OTEL_ variables.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final

from modelserver.errors import ConfigurationError
from modelserver.telemetry.clock import Clock
from modelserver.telemetry.free_times import FreeTimes
from modelserver.telemetry.latencies import version_of
from modelserver.telemetry.records import RequestTraced

_SERVICE: Final = "modelserver"
_GRPC: Final = "gRPC"  # the method of gRPC calls
_NAMED_BY: Final = ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES")
_END_LIMIT: Final = 2.0  # seconds for what has not been sent when the server stops


class Traces:
    """Makes spans of records; the library sends them in a thread of its own."""

    def __init__(self, clock: Clock) -> None:
        """Raises ConfigurationError where the library is not installed, or cannot use what a variable says."""
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            text = f"opentelemetry_traces needs packages: pip install 'modelserver[otel]' ({error})"
            raise ConfigurationError(text) from None
        named = any(os.environ.get(name) for name in _NAMED_BY)
        resource = Resource.create({} if named else {"service.name": _SERVICE})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        try:
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except ValueError as error:
            raise ConfigurationError(f"opentelemetry_traces: a variable OTEL_... is wrong: {error}") from None
        self._tracer = self._provider.get_tracer(_SERVICE)
        self._propagator = TraceContextTextMapPropagator()
        self._api: Any = trace
        self._clock = clock
        self.free = FreeTimes()

    def write(self, record: RequestTraced) -> None:
        """The spans of one prediction."""
        parent = self._propagator.extract({"traceparent": record.traceparent, "tracestate": record.tracestate})
        span = self._begin(f"predict {record.model}", record.received, parent, self._api.SpanKind.SERVER)
        if span.is_recording():
            span.set_attributes(_attributes(record))
            if reason := _failure(record):
                span.set_status(self._api.StatusCode.ERROR, reason)
            self._describe_way(record, self._api.set_span_in_context(span))
        self._end(span, record.responded)

    def _describe_way(self, record: RequestTraced, context: Any) -> None:
        """Queue and batch, worker and handler."""
        sent = record.sent or record.responded
        queue = self._begin("queue", record.received, context)
        company = max(record.received, self.free.before(record.worker, sent))
        if record.sent and company < sent:
            self._span("batch", company, sent, self._api.set_span_in_context(queue))
        self._end(queue, sent)
        if not record.sent:
            return
        replied = record.replied or record.responded
        worker = self._begin("worker", sent, context)
        worker.set_attribute("modelserver.worker", record.worker)
        if record.handler:
            # Measured by the worker's clock: how long is known, when it began is not. Ways there and back are alike.
            begin = sent + max(0.0, replied - sent - record.handler) / 2
            self._span("handler", begin, begin + record.handler, self._api.set_span_in_context(worker))
        self._end(worker, replied)

    def close(self) -> None:
        """Send what is left, within a limit: nobody may be there to take it."""
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(_END_LIMIT)

    def _begin(self, name: str, begin: float, context: Any, kind: Any = None) -> Any:
        kind = self._api.SpanKind.INTERNAL if kind is None else kind
        return self._tracer.start_span(name, context=context, kind=kind, start_time=self._nanoseconds(begin))

    def _end(self, span: Any, end: float) -> None:
        span.end(self._nanoseconds(end))

    def _span(self, name: str, begin: float, end: float, context: Any) -> None:
        self._end(self._begin(name, begin, context), end)

    def _nanoseconds(self, moment: float) -> int:
        """Since 1970."""
        return int((moment + self._clock.offset) * 1e9)


def _failure(record: RequestTraced) -> str:
    """Why a prediction counts as failed, "" if it does not; clients are to blame for 4xx."""
    if record.method == _GRPC:
        return f"gRPC status {record.status}" if record.status else ""
    if not record.status:
        return "the client has left"
    return f"HTTP status {record.status}" if record.status >= 500 else ""


def _attributes(record: RequestTraced) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "modelserver.model.name": record.model,
        "modelserver.model.version": version_of(record.worker, record.model) or record.label,
        "modelserver.request_id": record.request_id,
    }
    if record.method == _GRPC:
        service, _, method = record.target.rpartition("/")
        attributes |= {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        attributes["rpc.grpc.status_code"] = record.status
    else:
        attributes |= {"http.request.method": record.method, "url.path": record.target.partition("?")[0]}
        attributes["http.response.status_code"] = record.status
    return attributes
