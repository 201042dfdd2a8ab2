"""From a job to its HTTP response: whole, streamed, or none because the client has left."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from functools import lru_cache, partial

from modelserver.dialect.ports import Engine
from modelserver.engine.job import Chunks, Job, Overrun
from modelserver.errors import BadRequest, InternalError, ServerError, ServiceUnavailable
from modelserver.rest.call import Call
from modelserver.rest.exchange import Exchange, Headers
from modelserver.wire.frames import Reply

_STREAM_NEXT = (b"ts_stream_next", b"true")
# Written by the server; what a handler sets under these names is dropped.
_RESERVED = frozenset(
    {
        "cache-control",
        "connection",
        "content-length",
        "expires",
        "pragma",
        "transfer-encoding",
        "ts_stream_next",
        "x-request-id",
    }
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def submit(call: Call, engine: Engine, job: Job, version: str | None) -> None:
    """Give a job to the engine, and take it back if the client leaves. Raises BadRequest and what the engine raises."""
    if call.exchange.timeout is not None:
        job.timeout = patience_of(call.exchange.timeout)
    try:
        engine.submit(job, version)
    except ServiceUnavailable:
        call.job = job  # the model exists, so the request counts
        job.cancel()  # it refers to the call: no cycle may outlive the answer
        raise
    call.job = job
    call.exchange.on_gone = partial(_abandon, call, engine, job)


def patience_of(value: bytes) -> float:
    """Seconds that a client waits, from its X-Request-Timeout-Ms. Raises BadRequest."""
    if not (value.isdigit() and len(value) < 10 and int(value)):
        text = value.decode("latin-1")
        raise BadRequest(f"X-Request-Timeout-Ms must be a positive number of milliseconds: {text!r}")
    return int(value) / 1000


def _abandon(call: Call, engine: Engine, job: Job) -> None:
    engine.cancel(job)
    if job.chunks is not None:
        job.chunks.fail(Overrun("the client has left"))  # ends the task that streams, which records the request
    else:
        call.exchange.finished = True
        call.record(0, time.monotonic(), ok=False)


async def stream(call: Call, reply: Reply, chunks: Chunks) -> None:
    """Send a reply that comes in pieces; one that breaks off is cut, so that the client sees it is incomplete."""
    status, exchange = status_of(reply), call.exchange
    if status >= 400:
        exchange.keep_alive = False
    try:
        exchange.begin(status, call.head([*handler_headers(reply.headers), _STREAM_NEXT]))
        call.record_begin(status)
        await exchange.proceed(reply.body)
        while (piece := await chunks.get()) is not None:
            await exchange.proceed(piece)
    except (ServerError, Overrun) as error:
        if not exchange.started:
            call.fail(error if isinstance(error, ServerError) else InternalError(str(error)))
            return
        left = exchange.disconnected
        exchange.cut()
        call.record_end(0 if left else status, ok=False)
    except asyncio.CancelledError:  # the server does not wait any longer
        exchange.cut()
        raise
    else:
        exchange.end()
        call.record_end(status, ok=True)


def status_of(reply: Reply) -> int:
    """The handler's status; 500 for one that is no final HTTP status, which would leave the client waiting."""
    return reply.status if 200 <= reply.status <= 599 else 500


def handler_headers(pairs: Iterable[tuple[str, str]]) -> Headers:
    """The handler's response headers but those the server writes. Raises InternalError for one HTTP cannot carry."""
    return [header for name, value in pairs if (header := _checked(name, value)) is not None]


@lru_cache(maxsize=256)
def _checked(name: str, value: str) -> tuple[bytes, bytes] | None:
    """A header as HTTP carries it, None for one that the server writes: mostly the same few come again and again."""
    if name.lower() in _RESERVED:
        return None
    if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
        raise InternalError(f"Handler set an invalid response header: {name!r}: {value!r}")
    return name.encode("ascii"), _encode(value)


def request_headers(exchange: Exchange) -> Headers:
    """The client's headers for the handler, as sent; a body without Content-Length gets one instead of its encoding."""
    if exchange.sized:
        return exchange.raw_headers
    headers = [header for header in exchange.raw_headers if header[0].lower() != b"transfer-encoding"]
    headers.append((b"content-length", b"%d" % exchange.size))
    return headers


def _encode(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8")
