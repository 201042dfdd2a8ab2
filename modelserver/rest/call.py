"""One request on its way through an endpoint, and the one door by which its response and its record leave."""

from __future__ import annotations

import time
from typing import Any

from modelserver.engine.job import Job
from modelserver.errors import ServerError
from modelserver.rest.asgi import EXCHANGE, Headers, Receive, Scope, Send
from modelserver.rest.exchange import Exchange
from modelserver.rest.ports import Telemetry
from modelserver.rest.render import CLOSE, JSON_TYPE, UNCACHED, error_text, json_text
from modelserver.wire.frames import DESCRIBE


class ClientGone(Exception):
    """The client left before its request was complete: nobody to answer, nothing to record."""


class Call:
    """A request, the segments of its path, and the job made from it, if any."""

    __slots__ = ("_receive", "_send", "exchange", "job", "request_id", "scope", "segments", "telemetry")

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, telemetry: Telemetry) -> None:
        self.scope = scope
        self.request_id = request_id
        self.telemetry = telemetry
        self.exchange: Exchange = scope[EXCHANGE]
        self.segments: list[str] = []
        self.job: Job | None = None  # once the engine has accepted it
        self._receive = receive
        self._send = send

    @property
    def method(self) -> str:
        """`GET`, `POST`, ..."""
        method: str = self.scope["method"]
        return method

    def header(self, name: bytes) -> bytes:
        """The last header of this lower-case name, or b""."""
        found = b""
        for key, value in self.scope["headers"]:
            if key == name:
                found = value
        return found

    async def body(self) -> bytes:
        """The whole body. Raises the request's own error, or ClientGone."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message["body"]
        return body

    async def respond(self, status: int, body: bytes, headers: Headers, *, ok: bool = False) -> None:
        """Send a whole response and record it."""
        await self.begin(status, headers, len(body))
        responded = time.monotonic()
        await self._send({"type": "http.response.body", "body": body})
        self.record(status, responded, ok=ok)

    async def respond_json(self, status: int, value: Any) -> None:
        """Send a JSON body of the server's own."""
        await self.respond(status, json_text(value), [JSON_TYPE])

    async def fail(self, error: ServerError) -> None:
        """Send an error."""
        await self.respond(error.status, error_text(error), [JSON_TYPE])

    async def begin(self, status: int, headers: Headers, length: int | None) -> None:
        """Send the head; without a length a stream of `proceed` calls follows."""
        lines = [*headers, (b"x-request-id", self.request_id.encode("ascii")), *UNCACHED]
        if length is not None and status != 204:
            lines.append((b"content-length", b"%d" % length))
        if status >= 400:
            lines.append(CLOSE)
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    async def proceed(self, piece: bytes, *, more: bool) -> None:
        """Send one piece of a stream."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    def record(self, status: int, responded: float, *, ok: bool) -> None:
        """Tell telemetry; once per response."""
        exchange, job = self.exchange, self.job
        facts = (
            exchange.remote,
            self.scope["method"],
            exchange.target.decode("latin-1"),
            "HTTP/" + self.scope["http_version"],
            status,
            exchange.received or responded,  # an answer may be earlier than the end of the request
            responded,
        )
        if job is None or job.kind == DESCRIBE:
            self.telemetry.request_done(*facts, request_id=self.request_id)
        else:
            self.telemetry.request_done(
                *facts, job.worker, job.model, job.label, self.request_id, job.sent, job.replied, ok
            )
