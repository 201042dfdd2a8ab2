"""What one answered request leaves: its access line, its metrics, its line of the server log."""

from __future__ import annotations

from typing import Final

from modelserver.telemetry.clock import MILLISECOND, nanoseconds
from modelserver.telemetry.doubles import java_double
from modelserver.telemetry.forms import Form, field
from modelserver.telemetry.page import thread_name
from modelserver.telemetry.records import RequestDone
from modelserver.telemetry.scribe import Scribe

LISTENER_THREAD: Final = "listener"  # names lines that belong to no worker
GRPC: Final = "gRPC"  # the method of gRPC calls

_FORMS: Final = 4096
_HOST: Final = ("Host",)
_STATUS_METRICS: Final = {2: "Requests2XX", 4: "Requests4XX", 5: "Requests5XX"}
_CALL: Final = f'"{field("method")} {field("target")} {field("version")}"'
_ACCESS: Final = f"{field('remote')} {_CALL} {field('status')} {field('duration')}"
_WAITING: Final = f"Waiting time ns: {field('queue_ns')}, Backend time ns: {field('backend_ns')}"

# Worker, model, label, hundreds of the HTTP status; whether the client got an answer, the worker replied, it succeeded.
_Key = tuple[str, str, str, int, bool, bool, bool]


class RequestLines:
    """Expands request records. Requests with the same worker, model and outcome share a form."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe
        self._forms: dict[_Key, Form] = {}

    def write(self, record: RequestDone) -> None:
        """Update metrics and put the lines on the page."""
        key = _key(record)
        form = self._forms.get(key) or self._new_form(key)
        # Latencies in microseconds with the nanoseconds as fraction, queue time in whole milliseconds.
        replied = record.replied or record.responded
        queue_ns = nanoseconds(record.received, record.sent)
        latency, queue = nanoseconds(record.received, replied) / 1000, queue_ns / 1000
        queue_ms = float(queue_ns // MILLISECOND)
        if form.updates:
            form.update({"one": 1.0, "latency": latency, "queue": queue, "queue_ms": queue_ms})
        fields = self._fields(record, replied)
        fields["latency"], fields["queue"], fields["queue_ms"] = map(java_double, (latency, queue, queue_ms))
        if self._scribe.writes_debug:
            fields["queue_ns"] = str(queue_ns)
            fields["backend_ns"] = str(nanoseconds(record.sent or replied, replied))
        form.write(fields)

    def _fields(self, record: RequestDone, replied: float) -> dict[str, str]:
        stamp = self._scribe.clock.stamp
        received_date, received_s, _ = stamp(record.received)
        responded_date, responded_s, _ = stamp(record.responded)
        replied_date, replied_s, _ = stamp(replied)
        return {
            "remote": record.remote,
            "method": record.method,
            "target": record.target,
            "version": record.version,
            "status": str(record.status),
            "duration": str(nanoseconds(record.received, record.responded) // MILLISECOND),
            "id": record.request_id,
            "received": received_date,
            "received_s": received_s,
            "responded": responded_date,
            "responded_s": responded_s,
            "replied": replied_date,
            "replied_s": replied_s,
            "one": "1.0",
        }

    def _new_form(self, key: _Key) -> Form:
        worker, model, label, hundreds, answered, replied, ok = key
        form = Form(self._scribe, thread_name(worker) or LISTENER_THREAD)
        labels = (model, label)
        if model:
            form.metric("received", "ts_inference_requests_total", labels, "one", LISTENER_THREAD)
        if worker and replied and self._scribe.writes_info:
            form.server("replied", "INFO", "wlm.BatchAggregator", f"Sending response for jobId {field('id')}")
        if answered:
            form.access("responded", _ACCESS)
        if hundreds in _STATUS_METRICS:
            form.metric("responded", _STATUS_METRICS[hundreds], _HOST, "one")
        if model and ok:
            self._add_success(form, labels)
        if len(self._forms) >= _FORMS:
            self._forms.clear()
        self._forms[key] = form.finish()
        return form

    def _add_success(self, form: Form, labels: tuple[str, str]) -> None:
        form.metric("replied", "ts_inference_latency_microseconds", labels, "latency")
        form.metric("replied", "ts_queue_latency_microseconds", labels, "queue")
        if self._scribe.writes_debug:
            form.server("replied", "DEBUG", "job.RestJob", _WAITING)
        form.metric("replied", "QueueTime", _HOST, "queue_ms")


def _key(record: RequestDone) -> _Key:
    grpc = record.method == GRPC
    return (
        record.worker,
        record.model,
        record.label,
        0 if grpc else min(record.status // 100, 5),
        grpc or record.status != 0,
        record.replied > 0,
        record.ok,
    )
