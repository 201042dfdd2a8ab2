"""What one answered batch leaves: lines of the server log and of the worker, and the worker's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from modelserver.telemetry.clock import MILLISECOND, nanoseconds
from modelserver.telemetry.doubles import java_whole
from modelserver.telemetry.forms import Form, field
from modelserver.telemetry.page import thread_name
from modelserver.telemetry.records import BatchDone
from modelserver.telemetry.scribe import Scribe, Source

PATIENCE: Final = 1.0  # seconds that the last lines of a batch wait for the lines of its requests

_FORMS: Final = 4096
_LOGGER: Final = "wlm.WorkerThread"
_HEAD: Final = ("sent", "sent_s", "sent_ms", "sent_at", "record")
_TAIL: Final = ("done", "done_s", "response_ms", "thread_time", "done_at", "record")
_Forms = tuple[Form, Form, Source]  # before and after the lines of the requests; where metric updates come from


class _Tail(msgspec.Struct, gc=False):  # never part of a cycle, as the records
    """The last lines of a batch, due when the lines of all its requests are written."""

    form: Form
    fields: tuple[Any, ...]
    replied: float
    missing: int


class BatchLines:
    """Expands batch records. A batch is reported before its requests are, but its last lines follow theirs."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe
        self._detailed = scribe.routes.detailed
        self._forms: dict[str, _Forms] = {}
        self._tails: dict[str, _Tail] = {}  # by request id, oldest first

    @property
    def waiting(self) -> bool:
        """True while tails are held back."""
        return bool(self._tails)

    def write(self, record: BatchDone) -> None:
        """Update metrics and write the first lines; the last ones now if no request follows."""
        head, tail, source = self._forms.get(record.worker) or self._new_forms(record.worker)
        if self._tails:
            self._release_steps(record.ids)
        clock, replied = self._scribe.clock, record.replied
        if not head.silent:
            sent = clock.stamps[int((record.sent + clock.offset) * 1000)]
            fields = sent.date, sent.seconds, sent.milliseconds
            head.repeat((*fields, sent, record) if self._detailed else fields)
        for metric in record.metrics:
            self._scribe.update_model(metric, clock.stamp(replied), source)
        thread_time = nanoseconds(replied, record.done) // MILLISECOND
        if tail.updates:
            tail.update(thread_time=float(thread_time))
        if not tail.silent:
            done = clock.stamps[int((record.done + clock.offset) * 1000)]
            response_ms = str(nanoseconds(record.sent, replied) // MILLISECOND)
            last = done.date, done.seconds, response_ms, java_whole(thread_time)
            self._hold(record, tail, (*last, done, record) if self._detailed else last)

    def request_written(self, request_id: str) -> None:
        """The lines of this request are on the page."""
        tail = self._tails.pop(request_id, None)
        if tail is None:
            return
        tail.missing -= 1
        if not tail.missing:
            tail.form.repeat(tail.fields)

    def _release_steps(self, ids: Sequence[str]) -> None:
        """With continuous batching a request is in one batch after the other: the last ones wait for it no longer."""
        for request_id in ids:
            if request_id in self._tails:
                self.request_written(request_id)

    def release(self, until: float) -> None:
        """Wait no longer for requests of batches that were answered before that moment."""
        while self._tails:
            request_id, tail = next(iter(self._tails.items()))
            if tail.replied >= until:
                return
            self.request_written(request_id)

    def _hold(self, record: BatchDone, form: Form, fields: tuple[Any, ...]) -> None:
        ids = record.ids
        if not ids:
            form.repeat(fields)
            return
        tail = _Tail(form, fields, record.replied, len({*ids}) if len(ids) > 1 else 1)
        for request_id in ids:
            self._tails[request_id] = tail

    def _new_forms(self, worker: str) -> _Forms:
        thread = thread_name(worker)
        head, tail = Form(self._scribe.page, thread), Form(self._scribe.page, thread)
        if self._scribe.routes.request_debug:
            head.server(
                "sent", "DEBUG", _LOGGER, f"Flushing req.cmd PREDICT repeats 1 to backend at: {field('sent_ms')}"
            )
        head.server("sent", "INFO", _LOGGER, f"Looping backend response at: {field('sent_ms')}")
        head.model("sent", f"Backend received inference at: {field('sent_s')}")
        tail.server("done", "INFO", _LOGGER, f"Backend response time: {field('response_ms')}")
        tail.metric("done", self._scribe.server_series("WorkerThreadTime", ("Host",)), "thread_time")
        if len(self._forms) >= _FORMS:
            self._forms.clear()
        forms = self._forms[worker] = head.finish(_HEAD), tail.finish(_TAIL), Source(thread + "-stdout")
        return forms
