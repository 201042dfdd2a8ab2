"""Calls of which telemetry makes traces: a prediction is one, and so is each message of a stream of them."""

from __future__ import annotations

import time

import grpc

from modelserver.engine.job import Job
from modelserver.rpc.call import Call
from modelserver.wire.frames import DESCRIBE


class TracedCall(Call):
    """The trace of its caller goes on where the metadata names one."""

    __slots__ = ()

    def record(self, code: grpc.StatusCode) -> None:
        """Tell telemetry that the call is over."""
        super().record(code)
        if self.job is not None and self.job.kind != DESCRIBE:
            self._trace(self.job, code.value[0], self.received)

    def record_job(self, job: Job, *, ok: bool) -> None:
        """Tell telemetry that one of many jobs is over."""
        super().record_job(job, ok=ok)
        code = grpc.StatusCode.OK if ok else grpc.StatusCode.UNKNOWN
        self._trace(job, code.value[0], job.created)

    def _trace(self, job: Job, code: int, received: float) -> None:
        shown = dict(self.context.invocation_metadata() or ())
        self.telemetry.request_traced(
            method="gRPC",
            target=self.target,
            status=code,
            received=received,
            responded=time.monotonic(),
            worker=job.worker,
            model=job.model,
            label=job.label,
            request_id=job.request.id,
            sent=job.sent,
            replied=job.replied,
            handler=job.handler_ns / 1e9,
            traceparent=_text(shown.get("traceparent", "")),
            tracestate=_text(shown.get("tracestate", "")),
        )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
