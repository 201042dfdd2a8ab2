"""Takes traces as a collector does: OTLP over HTTP, on a port that the kernel chooses."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from harness.server import eventually


class Collector:
    """Keeps every span that it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: list[str] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What tells a sender to come here, at once."""
        endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def take(self, body: bytes) -> None:
        """One export."""
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.append(attributes.get("service.name", ""))
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def trace(self, request_id: str) -> dict[str, Any]:
        """Spans by name of the trace of one request, once its last one is here."""

        def find() -> dict[str, Any]:
            for span in list(self.spans):
                if attributes_of(span).get("modelserver.request_id") == request_id:
                    return {other.name: other for other in self.of_trace(span.trace_id.hex())}
            return {}

        return eventually(find)

    def of_trace(self, trace_id: str) -> list[Any]:
        """Spans of one trace so far."""
        return [span for span in list(self.spans) if span.trace_id.hex() == trace_id]


def attributes_of(span: Any) -> dict[str, Any]:
    """Plain values of a span's attributes."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
