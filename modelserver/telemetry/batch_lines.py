"""What one answered batch leaves: lines of the server log and of the worker, and the worker's metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from modelserver.telemetry.clock import MILLISECOND, nanoseconds
from modelserver.telemetry.doubles import java_double
from modelserver.telemetry.forms import Form, field
from modelserver.telemetry.page import thread_name
from modelserver.telemetry.records import BatchDone
from modelserver.telemetry.scribe import Scribe

PATIENCE: Final = 1.0  # seconds that the last lines of a batch wait for the lines of its requests

_FORMS: Final = 4096
_Forms = tuple[Form, Form, str]  # before and after the lines of the requests; the thread of the worker's own lines


@dataclass(slots=True)
class _Tail:
    """The last lines of a batch, due when the lines of all its requests are written."""

    form: Form
    fields: dict[str, str]
    replied: float
    missing: int


class BatchLines:
    """Expands batch records. A batch is reported before its requests are, but its last lines follow theirs."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe
        self._forms: dict[str, _Forms] = {}
        self._tails: dict[str, _Tail] = {}  # by request id, oldest first

    @property
    def waiting(self) -> bool:
        """True while tails are held back."""
        return bool(self._tails)

    def write(self, record: BatchDone) -> None:
        """Update metrics and write the first lines; the last ones now if no request follows."""
        head, tail, thread = self._forms.get(record.worker) or self._new_forms(record.worker)
        thread_time = float(nanoseconds(record.replied, record.done) // MILLISECOND)
        if tail.updates:
            tail.update({"thread_time": thread_time})
        fields = self._fields(record, thread_time)
        head.write(fields)
        if record.metrics:
            replied = self._scribe.clock.stamp(record.replied)
            for metric in record.metrics:
                self._scribe.update_model(metric, replied, thread)
        if not record.ids:
            tail.write(fields)
            return
        waiting = _Tail(tail, fields, record.replied, len({*record.ids}))
        for request_id in record.ids:
            self._tails[request_id] = waiting

    def request_written(self, request_id: str) -> None:
        """The lines of this request are on the page."""
        tail = self._tails.pop(request_id, None)
        if tail is None:
            return
        tail.missing -= 1
        if not tail.missing:
            tail.form.write(tail.fields)

    def release(self, until: float) -> None:
        """Wait no longer for requests of batches that were answered before that moment."""
        while self._tails:
            request_id, tail = next(iter(self._tails.items()))
            if tail.replied >= until:
                return
            self.request_written(request_id)

    def _new_forms(self, worker: str) -> _Forms:
        thread = thread_name(worker)
        head, tail = Form(self._scribe, thread), Form(self._scribe, thread)
        if self._scribe.writes_info:
            head.server("sent", "INFO", "wlm.WorkerThread", f"Looping backend response at: {field('sent_ms')}")
        head.model("sent", f"Backend received inference at: {field('sent_s')}")
        if self._scribe.writes_info:
            tail.server("done", "INFO", "wlm.WorkerThread", f"Backend response time: {field('response_ms')}")
        tail.metric("done", "WorkerThreadTime", ("Host",), "thread_time")
        if len(self._forms) >= _FORMS:
            self._forms.clear()
        forms = self._forms[worker] = head.finish(), tail.finish(), thread + "-stdout"
        return forms

    def _fields(self, record: BatchDone, thread_time: float) -> dict[str, str]:
        sent_date, sent_s, sent_ms = self._scribe.clock.stamp(record.sent)
        done_date, done_s, _ = self._scribe.clock.stamp(record.done)
        return {
            "sent": sent_date,
            "sent_s": sent_s,
            "sent_ms": sent_ms,
            "done": done_date,
            "done_s": done_s,
            "response_ms": str(nanoseconds(record.sent, record.replied) // MILLISECOND),
            "thread_time": java_double(thread_time),
        }
