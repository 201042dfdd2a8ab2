"""What one answered request leaves: its access line, its metrics, its line of the server log."""

from __future__ import annotations

from typing import Any, Final

from modelserver.telemetry.clock import MILLISECOND, nanoseconds
from modelserver.telemetry.doubles import java_thousandths, java_whole
from modelserver.telemetry.forms import Form, field
from modelserver.telemetry.page import thread_name
from modelserver.telemetry.records import ENDED, RequestDone
from modelserver.telemetry.scribe import Scribe

LISTENER_THREAD: Final = "listener"  # names lines that belong to no worker
GRPC: Final = "gRPC"  # the method of gRPC calls

_FORMS: Final = 4096
_HOST: Final = ("Host",)
_STATUS_METRICS: Final = {2: "Requests2XX", 4: "Requests4XX", 5: "Requests5XX"}
_WAITING: Final = f"Waiting time ns: {field('queue_ns')}, Backend time ns: {field('backend_ns')}"
# fmt: off
_FIELDS: Final = (
    "received", "received_s", "responded", "responded_s", "replied", "replied_s",
    "id", "access", "latency", "queue", "queue_ms", "one",
    "queue_ns", "backend_ns", "received_at", "responded_at", "replied_at", "record",
)
# fmt: on

# Worker, model, label, status; whether the call was gRPC, the worker replied, it succeeded.
_Key = tuple[str, str, str, int, bool, bool, bool]


class RequestLines:
    """Expands request records. Requests with the same worker, model and outcome share a form."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe
        self._series = scribe.server_series
        self._more = scribe.routes.request_debug or scribe.routes.detailed  # lines that need further fields
        self._forms: dict[_Key, Form] = {}

    def write(self, record: RequestDone) -> None:
        """Update metrics and put the lines on the page."""
        key = (
            record.worker,
            record.model,
            record.label,
            record.status,
            record.method == GRPC,
            record.replied > 0,
            record.ok,
        )
        form = self._forms.get(key) or self._new_form(key)
        replied = record.replied if record.replied > 0 else record.responded
        queue_ns, latency_ns = nanoseconds(record.received, record.sent), nanoseconds(record.received, replied)
        if form.updates:
            _update(form, queue_ns, latency_ns)
        if not form.silent:
            form.write(self._fields(record, replied, queue_ns, latency_ns))

    def _fields(self, record: RequestDone, replied_at: float, queue_ns: int, latency_ns: int) -> tuple[Any, ...]:
        stamps, offset = self._scribe.clock.stamps, self._scribe.clock.offset
        received = stamps[int((record.received + offset) * 1000)]
        responded = stamps[int((record.responded + offset) * 1000)]
        replied = stamps[int((replied_at + offset) * 1000)]
        duration = nanoseconds(record.received, record.responded) // MILLISECOND
        # fmt: off
        fields = (
            received.date, received.seconds, responded.date, responded.seconds, replied.date, replied.seconds,
            f"{record.request_id}",  # text whatever it is, see `Form.write`
            f'{record.remote} "{record.method} {record.target} {record.version}" {record.status} {duration}',
            java_thousandths(latency_ns), java_thousandths(queue_ns), java_whole(queue_ns // MILLISECOND), "1.0",
        )
        # fmt: on
        if not self._more:
            return fields
        backend_ns = str(nanoseconds(record.sent or replied_at, replied_at))
        return *fields, str(queue_ns), backend_ns, received, responded, replied, record

    def _new_form(self, key: _Key) -> Form:
        worker, model, label, status, grpc, replied, ok = key
        form = Form(self._scribe.page, thread_name(worker) or LISTENER_THREAD)
        labels = (model, label)
        if model and status != ENDED:
            form.metric("received", self._series("ts_inference_requests_total", labels), "one", LISTENER_THREAD)
        if worker and replied:
            form.server("replied", "INFO", "wlm.BatchAggregator", f"Sending response for jobId {field('id')}")
        if grpc or status > 0:
            form.access("responded", field("access"))
        if not grpc and (name := _STATUS_METRICS.get(min(status // 100, 5))):
            form.metric("responded", self._series(name, _HOST), "one")
        if model and ok:
            self._add_success(form, labels)
        if len(self._forms) >= _FORMS:
            self._forms.clear()
        self._forms[key] = form.finish(_FIELDS)
        return form

    def _add_success(self, form: Form, labels: tuple[str, str]) -> None:
        form.metric("replied", self._series("ts_inference_latency_microseconds", labels), "latency")
        form.metric("replied", self._series("ts_queue_latency_microseconds", labels), "queue")
        if self._scribe.routes.request_debug:
            form.server("replied", "DEBUG", "job.RestJob", _WAITING)
        form.metric("replied", self._series("QueueTime", _HOST), "queue_ms")


def _update(form: Form, queue_ns: int, latency_ns: int) -> None:
    """Latencies are in microseconds with the nanoseconds as fraction, the queue time in whole milliseconds."""
    queue_ms = float(queue_ns // MILLISECOND)
    form.update(one=1.0, latency=latency_ns / 1000, queue=queue_ns / 1000, queue_ms=queue_ms)
