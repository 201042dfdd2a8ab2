"""One HTTP request and its response, between the protocol that parses it and the app that answers it."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable, MutableSet

from uvicorn.protocols.http.flow_control import FlowControl

from modelserver.errors import ServerError
from modelserver.rest.asgi import EXCHANGE, App, Headers, Message, Scope

_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode("ascii") for status in range(100, 600)
}
_COPY_LIMIT = 64 << 10  # bytes of a body that are copied to save a write
_WITHOUT_BODY = frozenset({204, 304})


class Exchange:
    """The request as received so far, and the ASGI channel of its response.

    The whole body is received before `receive` hands it out, in one message: it is bounded by `max_request_size`.
    """

    __slots__ = (
        "_chunked",
        "_chunks",
        "_expects_continue",
        "_flow",
        "_head",
        "_on_done",
        "_read",
        "_silent",
        "_transport",
        "_version",
        "_waiter",
        "complete",
        "disconnected",
        "error",
        "finished",
        "keep_alive",
        "on_gone",
        "raw_headers",
        "received",
        "remote",
        "size",
        "sized",
        "started",
        "target",
    )

    def __init__(
        self,
        scope: Scope,
        transport: asyncio.Transport,
        flow: FlowControl,
        on_done: Callable[[Exchange], None],
        *,
        raw_headers: Headers,
        target: bytes,
        remote: str,
        keep_alive: bool,
        sized: bool = False,
        expects_continue: bool = False,
        error: ServerError | None = None,
    ) -> None:
        scope[EXCHANGE] = self  # one way only: a cycle would leave every request to the garbage collector
        self.raw_headers = raw_headers  # as sent: spelling, order and duplicates kept
        self.target = target  # path and query as sent
        self.remote = remote  # `/127.0.0.1:41008`
        self.sized = sized  # the client sent a Content-Length
        self.received = 0.0  # seconds, monotonic clock: when the request was complete
        self.error = error  # what is wrong with the request itself
        self.on_gone: Callable[[], None] | None = None  # called when the client leaves before the response is over

        self.size = 0  # bytes of the body so far
        self.complete = False  # the request, body included
        self.disconnected = False
        self.started = False  # the response
        self.finished = False  # the response
        self.keep_alive = keep_alive

        self._transport = transport
        self._flow = flow
        self._on_done = on_done
        self._expects_continue = expects_continue
        self._chunks: list[bytes] = []
        self._read = False
        self._waiter: asyncio.Future[None] | None = None
        self._chunked = False
        self._head = b""  # made, not yet written
        self._version: str = scope["http_version"]
        self._silent = scope["method"] == "HEAD"  # no body is written

    # The protocol's side.

    async def run(self, app: App, scope: Scope, tasks: MutableSet[asyncio.Task[None]]) -> None:
        """Run the app; one that fails to finish its response loses the connection."""
        try:
            await app(scope, self.receive, self.send)
        finally:
            if not self.finished:
                self.cut()
            if (task := asyncio.current_task()) is not None:
                tasks.discard(task)

    def feed(self, chunk: bytes) -> None:
        """A piece of the body arrived."""
        self.size += len(chunk)
        if self.error is None and not self.finished:
            self._chunks.append(chunk)

    def complete_at(self, now: float) -> None:
        """The request is complete."""
        self.complete = True
        self.received = now
        self._wake()

    def fail(self, error: ServerError, now: float) -> None:
        """The rest of the request cannot be read: `receive` raises the error."""
        self.error = error
        self.received = now
        self.keep_alive = False
        self._chunks.clear()
        self._wake()

    def gone(self) -> None:
        """The connection is lost."""
        if self.finished:
            return
        self.disconnected = True
        self._wake()
        if self.on_gone is not None:
            self.on_gone()

    # The app's side.

    async def receive(self) -> Message:
        """The whole body first, then `http.disconnect` once the exchange is over. Raises the request's error."""
        if self._read:
            while not (self.finished or self.disconnected):
                await self._wait()
            return {"type": "http.disconnect"}
        if self._expects_continue and self.error is None:
            self._expects_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.complete or self.error or self.disconnected):
            await self._wait()
        if self.error is not None:
            raise self.error
        self._read = True
        if not self.complete:
            return {"type": "http.disconnect"}
        chunks, self._chunks = self._chunks, []
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Write the head or a piece of the body; waits while the client is slow, does nothing once it has left."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._write_head(message["status"], message["headers"])
        else:
            self._write_body(message.get("body", b""), more=message.get("more_body", False))

    def cut(self) -> None:
        """Close the connection so that the client sees an incomplete response."""
        self.finished = self.disconnected = True
        self.on_gone = None
        if self._flow.write_paused:
            self._transport.abort()  # the client may never take what is buffered
        else:
            self._transport.close()

    def _write_head(self, status: int, headers: Headers) -> None:
        """Status line and headers; framing and `connection` are decided here, an app may ask for a close."""
        self.started = True
        if self._expects_continue:  # the body may or may not follow now: nobody can tell
            self.keep_alive = False
        parts = [_STATUS_LINES[status]]
        sized = False
        for name, value in headers:
            if name == b"connection":
                if value == b"close":
                    self.keep_alive = False
                continue
            if name == b"content-length":
                sized = True
            parts += (name, b": ", value, b"\r\n")
        if status in _WITHOUT_BODY:
            self._silent = True
        if not sized and not self._silent:
            if self._version == "1.1":
                self._chunked = True
                parts.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # the end of the connection is the end of the body
        parts.append(b"connection: keep-alive\r\n\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        self._head = b"".join(parts)

    def _write_body(self, body: bytes, *, more: bool) -> None:
        """A piece of the body, with the head in front of the first one: a small response is one write."""
        if self._silent:
            body = b""
        elif self._chunked:
            body = b"%b%b" % (b"%x\r\n%b\r\n" % (len(body), body) if body else b"", b"" if more else b"0\r\n\r\n")
        head, self._head = self._head, b""
        if len(body) > _COPY_LIMIT:
            self._transport.write(head)
            self._transport.write(body)
        elif head or body:
            self._transport.write(head + body)
        if more:
            return
        self.finished = True
        self._wake()
        self._on_done(self)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
