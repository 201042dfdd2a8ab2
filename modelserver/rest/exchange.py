"""One HTTP request and its response, between the protocol that parses it and the endpoint that answers it."""

from __future__ import annotations

import http
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from modelserver.errors import ServerError

Headers = list[tuple[bytes, bytes]]

_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode("ascii") for status in range(100, 600)
}
_COPY_LIMIT: Final = 64 << 10  # bytes of a body that are copied to save a write
_KEEP: Final = b"connection: keep-alive\r\n\r\n"
_CLOSE: Final = b"connection: close\r\n\r\n"
_CHUNKED: Final = b"transfer-encoding: chunked\r\n"
_BODILESS: Final = {204: b"", 205: b"content-length: 0\r\n", 304: b""}  # framing of responses that have no body


class Wire(Protocol):
    """The connection an exchange belongs to."""

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport."""

    async def drain(self) -> None:
        """Wait until a slow client has taken what was written."""

    def response_done(self, exchange: Exchange) -> None:
        """The response is complete."""

    def cut(self) -> None:
        """Close so that the client sees an incomplete response."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that takes more than one turn of the loop."""


class Exchange:
    """A request, complete or refused, and the way to answer it: `respond`, or `begin`, `proceed`..., `end`."""

    __slots__ = (
        "_chunked",
        "_chunks",
        "_mute",
        "_wire",
        "complete",
        "disconnected",
        "error",
        "finished",
        "headers",
        "keep_alive",
        "method",
        "on_gone",
        "raw_headers",
        "received",
        "remote",
        "size",
        "sized",
        "started",
        "target",
        "timeout",
        "version",
    )

    def __init__(
        self,
        wire: Wire,
        *,
        method: str,
        target: bytes,
        version: str,
        headers: Headers,
        raw_headers: Headers,
        remote: str,
        keep_alive: bool,
        sized: bool = False,
        timeout: bytes | None = None,
        error: ServerError | None = None,
    ) -> None:
        self.method = method
        self.target = target  # path and query as sent
        self.version = version  # of HTTP, "1.1"
        self.headers = headers  # names in lower case
        self.raw_headers = raw_headers  # as sent: spelling, order and duplicates kept
        self.remote = remote  # `/127.0.0.1:41008`
        self.sized = sized  # the client sent a Content-Length
        self.timeout = timeout  # value of X-Request-Timeout-Ms, as sent
        self.received = 0.0  # seconds, monotonic clock: when the request was complete
        self.error = error  # what is wrong with the request itself
        self.on_gone: Callable[[], object] | None = None  # called when the client leaves before the response is over

        self.size = 0  # bytes of the body so far
        self.complete = False  # the request, body included
        self.disconnected = False
        self.started = False  # the response
        self.finished = False  # the response
        self.keep_alive = keep_alive

        self._wire = wire
        self._chunks: list[bytes] = []
        self._chunked = False

    # The protocol's side.

    def feed(self, chunk: bytes) -> None:
        """A piece of the body arrived."""
        self.size += len(chunk)
        if self.error is None:
            self._chunks.append(chunk)

    def fail(self, error: ServerError) -> None:
        """The rest of the request cannot be read."""
        self.error = error
        self.keep_alive = False
        self._chunks.clear()

    def gone(self) -> None:
        """The connection is lost."""
        if not self.finished:
            self.disconnected = True
            on_gone, self.on_gone = self.on_gone, None  # it refers to this exchange, and no cycle may stay
            if on_gone is not None:
                on_gone()

    # The endpoint's side.

    def body(self) -> bytes:
        """The whole body; it is handed out once."""
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def respond(self, status: int, head: bytes, body: bytes) -> None:
        """Send a whole response; `head` holds complete header lines, framing and `connection` are added here."""
        self.started = True
        if status == 205:
            body = b""
        length = b"" if status == 204 else b"content-length: %d\r\n" % len(body)
        lines = b"%b%b%b%b" % (_STATUS_LINES[status], head, length, _KEEP if self.keep_alive else _CLOSE)
        if status in (204, 304) or self.method == "HEAD":
            self._write(lines)
        elif len(body) > _COPY_LIMIT:
            self._write(lines)
            self._write(body)
        else:
            self._write(lines + body)
        self._done()

    def begin(self, status: int, head: bytes) -> None:
        """Send the head of a response that comes in pieces."""
        self.started = True
        self._mute = self.method == "HEAD" or status in _BODILESS  # the pieces are not sent
        self._chunked = self.version == "1.1"
        framing = _CHUNKED if self._chunked else b""
        if status in _BODILESS:
            framing = _BODILESS[status]
        elif not self._chunked:
            self.keep_alive = False  # the end of the connection is the end of the body
        self._write(b"%b%b%b%b" % (_STATUS_LINES[status], head, framing, _KEEP if self.keep_alive else _CLOSE))

    async def proceed(self, piece: bytes) -> None:
        """Send a piece; waits while the client is slow."""
        if piece and not self._mute:
            self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
            await self._wire.drain()

    def end(self) -> None:
        """The last piece has been sent."""
        if self._chunked and not self._mute:
            self._write(b"0\r\n\r\n")
        self._done()

    def cut(self) -> None:
        """Close the connection so that the client sees an incomplete response."""
        self.finished = self.disconnected = True
        self.on_gone = None
        self._wire.cut()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Go on with the answer in a task."""
        self._wire.spawn(work)

    def _write(self, data: bytes) -> None:
        if not self.disconnected:
            self._wire.write(data)

    def _done(self) -> None:
        self.finished = True
        self.on_gone = None
        if not self.disconnected:
            self._wire.response_done(self)


def origin_form(target: bytes) -> bytes:
    """Path and query of a request target, which may be absolute (`http://host/path`)."""
    if target.startswith(b"/"):
        return target
    _, scheme, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if scheme else target


App = Callable[[Exchange], None]
