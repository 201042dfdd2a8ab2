"""HTTP/1.x on one connection: uvicorn's protocol with limits, raw header names and an ear for lost clients."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from modelserver.errors import BadRequest, BodyTooLarge, RequestTimeout, ServerError
from modelserver.rest.asgi import App, Headers, Scope
from modelserver.rest.exchange import Exchange
from modelserver.settings.table import Settings

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_NOTED: Final = frozenset({b"content-length", b"expect"})


@dataclass(frozen=True, slots=True)
class ProtocolOptions:
    """Bounds on what one connection may cost."""

    max_body: int = 6_553_500  # bytes
    max_head: int = 256 << 10  # bytes of request line and headers beyond the packet they begin in
    max_headers: int = 1000
    max_pipelined: int = 100  # requests that wait behind the one being answered
    receive_timeout: float = 60.0  # seconds from the first byte of a request to its last ...
    receive_rate: float = 1024.0  # ... unless it keeps coming at this rate or faster, bytes/s
    linger: float = 2.0  # seconds to discard what a client still sends after its last response

    @classmethod
    def of(cls, settings: Settings) -> ProtocolOptions:
        """The bounds that a configuration asks for."""
        return cls(max_body=settings.max_request_size)


class _Refused(Exception):
    """Raised in a parser callback to stop the parser."""


class HttpProtocol(HttpToolsProtocol):
    """One connection: parses requests into exchanges, runs them one at a time, in order, within its limits."""

    options: ClassVar[ProtocolOptions] = ProtocolOptions()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.asgi_app: App = self.app
        self.remote = ""
        self.running: Exchange | None = None
        self.waiting: deque[tuple[Exchange, Scope]] = deque()  # pipelined

        # The request being received.
        self.in_request = False
        self.incoming: Exchange | None = None  # once its head is complete
        self.url = b""
        self.raw_headers: Headers = []
        self.content_length: int | None = None
        self.begun = 0.0  # seconds, loop clock
        self.arrived = 0  # bytes, without the packet it began in
        self.overhead = 0  # bytes since the last piece of body: head, trailers, chunk extensions
        self.receive_timer: asyncio.TimerHandle | None = None

        # The end of the connection.
        self.deaf = False  # what arrives is discarded
        self.linger_timer: asyncio.TimerHandle | None = None

    # Transport callbacks.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if self.client is not None:
            host, port = self.client
            self.remote = f"/[{host}]:{port}" if ":" in host else f"/{host}:{port}"

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over: whoever works for it is told at once."""
        self.connections.discard(self)
        self.deaf = True
        self._forget_receive_timer()
        if self.linger_timer is not None:
            self.linger_timer.cancel()
        self.flow.resume_writing()
        self.waiting.clear()
        if self.running is not None:
            self.running.gone()
        self.parser = None  # type: ignore[assignment]  # parser and protocol refer to each other

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, unless nothing more is wanted from this client."""
        if self.deaf:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            if not self.deaf:
                self._refuse(BadRequest("Invalid HTTP message."))
        if self.in_request and not self.deaf:
            self._watch(len(data))

    def shutdown(self) -> None:
        """The server stops: close now, or after the responses that are owed."""
        if self.running is None:
            self.transport.close()
        else:
            last = self.waiting[-1][0] if self.waiting else self.running
            last.keep_alive = False

    # Parser callbacks.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self.in_request = True
        self.incoming = None
        self.url = b""
        self.headers = []
        self.raw_headers = []
        self.content_length = None
        self.expect_100_continue = False
        self.arrived = 0
        self.overhead = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, kept as sent and in ASGI's lower case; trailers are dropped."""
        if self.incoming is not None:
            return
        if len(self.raw_headers) == self.options.max_headers:
            raise _Refused
        lowered = name.lower()
        self.raw_headers.append((name, value))
        self.headers.append((lowered, value))
        if lowered in _NOTED:
            if lowered == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            else:
                self.content_length = int(value)

    def on_headers_complete(self) -> None:
        """The head is complete: the app can start."""
        if self.parser.should_upgrade():
            return  # parsed again without the upgrade
        if len(self.waiting) >= self.options.max_pipelined:
            self.waiting[-1][0].keep_alive = False  # it is answered, then the client has to come again
            self.deaf = True
            raise _Refused
        error = None
        if self.content_length is not None and self.content_length > self.options.max_body:
            error = BodyTooLarge(self.options.max_body)
        self._accept(self.parser.get_method().decode("ascii"), self.parser.get_http_version(), error)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.overhead = 0
        if (exchange := self.incoming) is not None:
            exchange.feed(body)
            if exchange.size > self.options.max_body and exchange.error is None:
                self._refuse(BodyTooLarge(self.options.max_body))

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        self.in_request = False
        self._forget_receive_timer()
        if self.incoming is not None:
            self.incoming.complete_at(time.monotonic())

    # From requests to responses.

    def _accept(self, method: str, version: str, error: ServerError | None) -> None:
        """Make the exchange of the request being received, and run it now or after those before it."""
        scope = self._scope(method, version)
        exchange = self.incoming = Exchange(
            scope,
            self.transport,
            self.flow,
            self._response_done,
            raw_headers=self.raw_headers,
            target=self.url or b"/",
            remote=self.remote,
            keep_alive=error is None and self.parser.should_keep_alive(),
            sized=self.content_length is not None,
            expects_continue=self.expect_100_continue,
            error=error,
        )
        if self.running is None:
            self._run(exchange, scope)
        else:
            self.flow.pause_reading()
            self.waiting.append((exchange, scope))

    def _scope(self, method: str, version: str) -> Scope:
        path, _, query = _origin_form(self.url).partition(b"?")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method,
            "scheme": self.scheme,
            "path": urllib.parse.unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
        }

    def _run(self, exchange: Exchange, scope: Scope) -> None:
        self.running = exchange
        if not self.waiting:
            self.flow.resume_reading()  # the body of this one may be incomplete
        self.tasks.add(self.loop.create_task(exchange.run(self.asgi_app, scope, self.tasks)))

    def _response_done(self, exchange: Exchange) -> None:
        self.running = None
        self.server_state.total_requests += 1
        if not exchange.keep_alive:
            self._close()
        elif self.waiting:
            self._run(*self.waiting.popleft())

    # Refusing.

    def _refuse(self, error: ServerError) -> None:
        """Answer the request being received with an error, and listen no more."""
        self.deaf = True
        self._forget_receive_timer()
        exchange = self.incoming if self.in_request else None
        if exchange is None:
            self._accept("GET", "1.1", error)
        elif exchange.finished:
            self._close()
        else:
            exchange.fail(error, time.monotonic())

    def _decline_upgrade(self, rest: bytes) -> None:
        """Parse a request that asked for another protocol again, as one that did not; its body is in `rest`."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(BadRequest("Invalid HTTP message."))
            return
        head = [b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode("ascii"))]
        head += [b"%b: %b\r\n" % header for header in self.raw_headers if header[0].lower() != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"%b\r\n%b" % (b"".join(head), rest))

    def _watch(self, size: int) -> None:
        """Bound in bytes and time a request that did not come in one packet."""
        if self.receive_timer is None:
            self.begun = self.loop.time()
            self.receive_timer = self.loop.call_later(self.options.receive_timeout, self._check_progress)
            return
        self.arrived += size
        self.overhead += size
        if self.overhead > self.options.max_head + size:
            self._refuse(BadRequest("Invalid HTTP message."))

    def _check_progress(self) -> None:
        enough = self.options.receive_rate * (self.loop.time() - self.begun)
        if self.flow.read_paused or self.arrived >= enough:
            self.receive_timer = self.loop.call_later(self.options.receive_timeout, self._check_progress)
        else:
            self._refuse(RequestTimeout("Request was not received in time."))

    def _forget_receive_timer(self) -> None:
        if self.receive_timer is not None:
            self.receive_timer.cancel()
            self.receive_timer = None

    def _close(self) -> None:
        """Close after the last response; a client that still sends gets time to read it: a plain close would reset."""
        sending = self.in_request or self.deaf or self.waiting
        if not sending or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.deaf = True
        self.waiting.clear()
        self._forget_receive_timer()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.linger_timer = self.loop.call_later(self.options.linger, self.transport.abort)


def _origin_form(url: bytes) -> bytes:
    """Path and query of a request target, which may be absolute (`http://host/path`)."""
    if url.startswith(b"/"):
        return url
    _, scheme, rest = url.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if scheme else url


def protocol_class(options: ProtocolOptions) -> type[asyncio.Protocol]:
    """The class to give to `uvicorn.Config(http=...)`."""
    return type("HttpProtocol", (HttpProtocol,), {"options": options})
