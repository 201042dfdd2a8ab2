"""HTTP/1.x on one connection: uvicorn's protocol with limits, raw header names and an ear for lost clients."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from modelserver.errors import BadRequest, BodyTooLarge, RequestTimeout, ServerError
from modelserver.rest.exchange import App, Exchange, Headers
from modelserver.rest.farewell import delivered
from modelserver.rest.reception import Reception
from modelserver.rest.verbs import IncompleteVerb, StrangeVerb, begins_verb, split_strange_verb
from modelserver.settings.table import Settings

_TIMEOUT: Final = b"x-request-timeout-ms"
_NOTED: Final = frozenset({b"content-length", b"expect", _TIMEOUT})


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
    farewell: float = 0.2  # seconds between two looks whether the last response over TLS has been delivered
    first_request: float = 1.0  # seconds for the first request of a connection once the server stops
    admits: Callable[[asyncio.BaseTransport], bool] = lambda _: True  # whether a new connection may stay

    @classmethod
    def of(cls, settings: Settings, admits: Callable[[asyncio.BaseTransport], bool]) -> ProtocolOptions:
        """The bounds that a configuration asks for."""
        return cls(max_body=settings.max_request_size, admits=admits)


class _Refused(Exception):
    """Raised in a parser callback to stop the parser."""


class HttpProtocol(HttpToolsProtocol):
    """One connection: parses requests into exchanges, runs them one at a time, in order, within its limits."""

    options: ClassVar[ProtocolOptions] = ProtocolOptions()

    def __init__(
        self,
        config: Config,
        reception: Reception,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, reception, app_state, _loop)
        self.reception = reception
        self.serve: App = config.loaded_app
        self.remote = ""
        self.running: Exchange | None = None
        self.waiting: deque[Exchange] = deque()  # pipelined

        # The request being received.
        self.in_request = False
        self.incoming: Exchange | None = None  # once its head is complete
        self.verb = b""  # what there is of it, where a packet has ended in it
        self.url = b""
        self.raw_headers: Headers = []
        self.content_length: int | None = None
        self.timeout: bytes | None = None  # how long the client waits, as sent
        self.begun = 0.0  # seconds, loop clock
        self.arrived = 0  # bytes, without the packet it began in
        self.overhead = 0  # bytes since the last piece of body: head, trailers, chunk extensions
        self.receive_timer: asyncio.TimerHandle | None = None

        # The end of the connection.
        self.lame = False  # requests to come are the last ones
        self.deaf = False  # what arrives is discarded
        self.linger_timer: asyncio.TimerHandle | None = None
        self.first_request_timer: asyncio.TimerHandle | None = None

    # Transport callbacks.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if self.client is not None:
            host, port = self.client
            self.remote = f"/[{host}]:{port}" if ":" in host else f"/{host}:{port}"
        self.lame = self.reception.lame
        if not self.options.admits(transport):
            self.deaf = True
            self.transport.abort()
        elif self.reception.closing:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over: whoever works for it is told at once."""
        self.reception.leave(self)
        self.deaf = True
        self._forget_receive_timer()
        for timer in (self.linger_timer, self.first_request_timer):
            if timer is not None:
                timer.cancel()
        self.waiting.clear()
        running, self.running, self.incoming = self.running, None, None
        if running is not None:
            running.gone()
        self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]  # parser and protocol refer to each other

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, unless nothing more is wanted from this client."""
        if self.deaf:
            return
        begins = not self.in_request
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserInvalidMethodError:
            if not self.deaf and self._learn_verb(self._beginning(data, begins)):
                return
        except httptools.HttpParserError:
            if not self.deaf:
                self._refuse(BadRequest("Invalid HTTP message."))
        if self.in_request and not self.deaf:
            beginning = b"" if self.url else self._beginning(data, begins)
            self.verb = beginning if begins_verb(beginning) else b""
            self._invite_body()
            self._watch(len(data))

    def resume_writing(self) -> None:
        """The client has taken what was written: whoever waits to write may go on, and the next request too."""
        self.flow.resume_writing()
        self._serve_next()

    # What the reception asks for when the server is about to stop.

    @property
    def owed(self) -> int:
        """Requests whose heads have arrived, and whose responses are not complete."""
        return len(self.waiting) + (self.running is not None)

    def go_lame(self) -> None:
        """The next response is the last one, unless others are owed after it; one that has begun said otherwise."""
        self.lame = True
        if (last := self._last()) is not None and not last.started:
            last.keep_alive = False

    def shutdown(self) -> None:
        """Close now, or after the responses that are owed; a client that has only connected may send one request."""
        self.lame = True
        if (last := self._last()) is not None:
            last.keep_alive = False
        elif self.in_request or self.deaf:
            pass  # it ends after the response to that request, or is at its end already
        elif self.url:
            self._hang_up()
        else:
            self.first_request_timer = self.loop.call_later(self.options.first_request, self._close_unused)

    def give_up(self) -> None:
        """A request that is not here by now is refused, and a client that has sent none has to go."""
        if self.in_request and not self.deaf:
            self._refuse(RequestTimeout("Request was not received in time."))
        elif self.running is None and not self.deaf:
            self._hang_up()

    def abort(self) -> None:
        """Close at once, whatever is owed or unsent."""
        self.transport.abort()

    def _last(self) -> Exchange | None:
        """The last request whose response is owed."""
        return self.waiting[-1] if self.waiting else self.running

    def _close_unused(self) -> None:
        if not (self.url or self.in_request or self.deaf):
            self._hang_up()

    # Parser callbacks.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self.deaf:  # the answer to the one before it was the last one
            raise _Refused
        self.in_request = True
        self.incoming = None
        self.url = b""
        self.headers = []
        self.raw_headers = []
        self.content_length = None
        self.timeout = None
        self.expect_100_continue = False
        self.arrived = 0
        self.overhead = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, kept as sent and in ASGI's lower case; trailers are dropped."""
        if self.incoming is not None:
            return
        if len(self.raw_headers) == self.options.max_headers:
            raise _Refused
        lowered, value = name.lower(), value.rstrip(b" \t")  # the parser strips blanks in front only
        self.raw_headers.append((name, value))
        self.headers.append((lowered, value))
        if lowered in _NOTED:
            if lowered == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            elif lowered == _TIMEOUT:
                self.timeout = value
            else:
                self.content_length = int(value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self.parser.should_upgrade():
            return  # parsed again without the upgrade
        if len(self.waiting) >= self.options.max_pipelined:
            self.waiting[-1].keep_alive = False  # it is answered, then the client has to come again
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
        exchange, self.incoming = self.incoming, None
        if exchange is not None:
            exchange.complete = True
            if exchange.error is None:
                exchange.received = time.monotonic()
                if exchange is self.running:
                    self.serve(exchange)

    # From requests to responses.

    def _accept(self, method: str, version: str, error: ServerError | None) -> None:
        """Make the exchange of the request being received; it is served when it is complete, after those before it."""
        exchange = self.incoming = Exchange(
            self,
            method=method,
            target=self.url or b"/",
            version=version,
            headers=self.headers,
            raw_headers=self.raw_headers,
            remote=self.remote,
            keep_alive=error is None and not self.lame and self.parser.should_keep_alive(),
            sized=self.content_length is not None,
            timeout=self.timeout,
            error=error,
        )
        if self.running is not None:
            self.flow.pause_reading()
            self.waiting.append(exchange)
            return
        self.running = exchange
        if error is not None:
            exchange.received = time.monotonic()
            self.serve(exchange)

    def _serve_next(self) -> None:
        """Go on with the next pipelined request, unless the client has still to take a response."""
        if self.running is not None or not self.waiting or self.flow.write_paused or self.transport.is_closing():
            return
        exchange = self.running = self.waiting.popleft()
        if not self.waiting:
            self.flow.resume_reading()  # the body of this one may be incomplete
        if exchange.complete or exchange.error is not None:
            exchange.received = exchange.received or time.monotonic()
            self.serve(exchange)
        else:
            self._invite_body()

    def _invite_body(self) -> None:
        """A client that asked whether to send its body is told to go on."""
        if self.expect_100_continue and self.incoming is not None and self.incoming is self.running:
            self.expect_100_continue = False
            if self.incoming.error is None:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # The exchange's side of the connection.

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport."""
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until a slow client has taken what was written."""
        if self.flow.write_paused:
            await self.flow.drain()

    def response_done(self, exchange: Exchange) -> None:
        """The response is complete."""
        self.running = None
        if not exchange.keep_alive:
            self._close()
        elif self.waiting:
            self.loop.call_soon(self._serve_next)  # not at once: a hundred of them would nest

    def cut(self) -> None:
        """Close so that the client sees an incomplete response."""
        if self.flow.write_paused:
            self.transport.abort()  # the client may never take what is buffered
        else:
            self._hang_up()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that takes more than one turn of the loop; the server waits for it when it stops."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

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
        elif exchange.error is None:
            exchange.fail(error)
            exchange.received = time.monotonic()
            if exchange is self.running:
                self.serve(exchange)

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

    def _beginning(self, data: bytes, begins: bool) -> bytes:
        """The request from its first byte, where that is known; what follows another one in a packet is not."""
        return data if begins else self.verb and self.verb + data

    def _learn_verb(self, beginning: bytes) -> bool:
        """Go on with a request whose verb the parser does not know; False where its verb is not here, or none."""
        if (found := split_strange_verb(beginning)) is not None:
            verb, rest = found
            self.verb = b""
            self.parser = parser = StrangeVerb(self, verb)
            self.data_received(parser.known + rest)
            return True
        if begins_verb(beginning):
            self.parser = IncompleteVerb(self)
        else:
            self._refuse(BadRequest("Invalid HTTP message."))
        return False

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
        if not sending:
            self._hang_up()
            return
        self.deaf = True
        self.waiting.clear()
        self._forget_receive_timer()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()  # TLS says that nothing follows, and goes on reading
        self.linger_timer = self.loop.call_later(self.options.linger, self.transport.abort)

    def _hang_up(self) -> None:
        """Close; over TLS, as soon as the client has everything, whether or not it says that it closes, too."""
        self.deaf = True
        self.transport.close()
        if self.scheme == "https" and self.linger_timer is None:
            self.linger_timer = self.loop.call_later(self.options.farewell, self._part, None)

    def _part(self, before: int | None) -> None:
        if (now := delivered(self.transport)) is not None and now == before:
            self.transport.abort()
        else:
            self.linger_timer = self.loop.call_later(self.options.farewell, self._part, now)


def protocol_class(options: ProtocolOptions) -> type[asyncio.Protocol]:
    """The class to give to `uvicorn.Config(http=...)`."""
    return type("HttpProtocol", (HttpProtocol,), {"options": options})
