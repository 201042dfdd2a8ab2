"""Where the time of a prediction went: told to the client in a header, and to telemetry for a trace."""

from __future__ import annotations

import time

from modelserver.engine.job import Job
from modelserver.rest.call import Call
from modelserver.rest.exchange import Headers
from modelserver.wire.frames import DESCRIBE


class TimedCall(Call):
    """A call whose response says in `Server-Timing` how long its job was where, in milliseconds.

    `queue`: until it was sent to a worker, company for its batch included. `worker`: until the reply, or the first
    piece of it, was here. `handler`: in the handler, which is a part of that. `total`: until now.
    """

    __slots__ = ()

    def head(self, headers: Headers) -> bytes:
        """The header lines of a response."""
        job = self.job
        if job is None or not job.sent:
            return super().head(headers)
        return super().head([*headers, (b"server-timing", timing(job, time.monotonic()).encode())])


def timing(job: Job, now: float) -> str:
    """The value of the header, for a job that was sent to a worker."""
    replied = job.replied or now
    parts = [("queue", job.sent - job.created), ("worker", replied - job.sent)]
    if job.handler_ns:
        parts.append(("handler", job.handler_ns / 1e9))
    parts.append(("total", now - job.created))
    return ", ".join(f"{name};dur={1000 * max(0.0, seconds):.3f}" for name, seconds in parts)


class TracedCall(Call):
    """A call of which telemetry makes a trace if it is a prediction; its caller's trace goes on where there is one."""

    __slots__ = ()

    def record(self, status: int, responded: float, *, ok: bool) -> None:
        """Tell telemetry; once per response."""
        super().record(status, responded, ok=ok)
        self._trace(status, responded)

    def record_end(self, status: int, *, ok: bool) -> None:
        """Tell telemetry; once per response that came in pieces."""
        super().record_end(status, ok=ok)
        self._trace(status, time.monotonic())

    def _trace(self, status: int, responded: float) -> None:
        job, exchange = self.job, self.exchange
        if job is not None and job.kind != DESCRIBE:
            self.telemetry.request_traced(
                method=exchange.method,
                target=exchange.target.decode("latin-1"),
                status=status,
                received=exchange.received,
                responded=responded,
                worker=job.worker,
                model=job.model,
                label=job.label,
                request_id=self.request_id,
                sent=job.sent,
                replied=job.replied,
                handler=job.handler_ns / 1e9,
                traceparent=self.header(b"traceparent").decode("latin-1"),
                tracestate=self.header(b"tracestate").decode("latin-1"),
            )
