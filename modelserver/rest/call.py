"""One request on its way through an endpoint, and the one door by which its response and its record leave."""

from __future__ import annotations

import time
from typing import Any

from modelserver.engine.job import Job
from modelserver.errors import ServerError
from modelserver.rest.exchange import Exchange, Headers, origin_form
from modelserver.rest.ports import Telemetry
from modelserver.rest.render import JSON_TYPE, UNCACHED, error_text, json_text
from modelserver.telemetry.records import BEGUN, ENDED
from modelserver.wire.frames import DESCRIBE


class Call:
    """A request, the segments of its path, and the job made from it, if any."""

    __slots__ = ("exchange", "job", "query", "request_id", "segments", "telemetry")

    def __init__(self, exchange: Exchange, request_id: str, telemetry: Telemetry) -> None:
        self.exchange = exchange
        self.request_id = request_id
        self.telemetry = telemetry
        self.segments: list[str] = []  # of the decoded path
        self.query = b""  # as sent
        self.job: Job | None = None  # once the engine has accepted it

    @property
    def method(self) -> str:
        """`GET`, `POST`, ..."""
        return self.exchange.method

    def split_target(self) -> bytes:
        """Keep the query, return the path, both as sent."""
        path, _, self.query = origin_form(self.exchange.target).partition(b"?")
        return path

    def header(self, name: bytes) -> bytes:
        """The first header of this lower-case name, or b""."""
        for key, value in self.exchange.headers:
            if key == name:
                return value
        return b""

    def respond(self, status: int, body: bytes, headers: Headers, *, ok: bool = False) -> None:
        """Send a whole response and record it."""
        if status >= 400:
            self.exchange.keep_alive = False
        head = self.head(headers)
        responded = time.monotonic()
        self.exchange.respond(status, head, body)
        self.record(status, responded, ok=ok)

    def respond_json(self, status: int, value: Any) -> None:
        """Send a JSON body of the server's own."""
        self.respond(status, json_text(value), [JSON_TYPE])

    def fail(self, error: ServerError) -> None:
        """Send an error; a response that has begun is cut, so that the client sees that it is incomplete."""
        if self.exchange.started:
            self.exchange.cut()
            self.record(error.status, time.monotonic(), ok=False)
        else:
            path = origin_form(self.exchange.target).partition(b"?")[0] + b"/"
            self.respond(error.status, error_text(error, protocol=path.startswith(b"/v2/")), [JSON_TYPE])

    def head(self, headers: Headers) -> bytes:
        """The header lines of a response: the given ones, then those that every response has."""
        common = b"x-request-id: %b\r\n%b" % (self.request_id.encode("ascii"), UNCACHED)
        return b"".join([b"%b: %b\r\n" % header for header in headers]) + common if headers else common

    def record(self, status: int, responded: float, *, ok: bool) -> None:
        """Tell telemetry; once per response."""
        exchange, job = self.exchange, self.job
        facts = (
            exchange.remote,
            exchange.method,
            exchange.target.decode("latin-1"),
            "HTTP/" + exchange.version,
            status,
            exchange.received,
            responded,
        )
        if job is None or job.kind == DESCRIBE:
            self.telemetry.request_done(*facts, request_id=self.request_id)
        else:
            self.telemetry.request_done(
                *facts, job.worker, job.model, job.label, self.request_id, job.sent, job.replied, ok
            )

    def record_begin(self, status: int) -> None:
        """Tell telemetry that a response begins whose pieces may take minutes."""
        self._record_stream(status, replied=BEGUN, ok=False)

    def record_end(self, status: int, *, ok: bool) -> None:
        """Tell telemetry that its last piece is sent, or that it broke off (status 0: because the client has left)."""
        assert self.job is not None
        self._record_stream(ENDED, replied=self.job.replied, ok=ok)

    def _record_stream(self, status: int, *, replied: float, ok: bool) -> None:
        exchange, job = self.exchange, self.job
        assert job is not None
        self.telemetry.request_done(
            exchange.remote,
            exchange.method,
            exchange.target.decode("latin-1"),
            "HTTP/" + exchange.version,
            status,
            exchange.received,
            time.monotonic(),
            job.worker,
            job.model,
            job.label,
            self.request_id,
            job.sent,
            replied,
            ok,
        )
