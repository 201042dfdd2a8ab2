"""From a job to its HTTP response: whole, streamed, or none because the client has left."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from functools import partial

from modelserver.engine.job import Chunks, Job, Overrun
from modelserver.errors import InternalError, ServerError, ServiceUnavailable
from modelserver.rest.asgi import Headers
from modelserver.rest.call import Call
from modelserver.rest.exchange import Exchange
from modelserver.rest.ports import Engine
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


async def reply_to(call: Call, engine: Engine, job: Job, version: str | None) -> Reply | None:
    """Submit a job and wait for its (first) reply; None once the client has left. Raises the job's ServerError."""
    try:
        engine.submit(job, version)
    except ServiceUnavailable:
        call.job = job  # the model exists, so the request counts
        raise
    assert job.reply is not None
    call.job = job
    call.exchange.on_gone = partial(_abandon, engine, job)
    try:
        return await job.reply
    except asyncio.CancelledError:
        if not call.exchange.disconnected:
            raise
        call.record(0, time.monotonic(), ok=False)
        return None


def _abandon(engine: Engine, job: Job) -> None:
    engine.cancel(job)
    if job.chunks is not None:
        job.chunks.fail(Overrun("the client has left"))


async def stream(call: Call, reply: Reply, chunks: Chunks) -> None:
    """Send a reply that comes in pieces; one that breaks off is cut, so that the client sees it is incomplete."""
    status = status_of(reply)
    await call.begin(status, [*handler_headers(reply.headers), _STREAM_NEXT], None)
    responded = time.monotonic()
    try:
        await call.proceed(reply.body, more=True)
        while (piece := await chunks.get()) is not None:
            await call.proceed(piece, more=True)
        await call.proceed(b"", more=False)
    except (ServerError, Overrun):
        left = call.exchange.disconnected
        call.exchange.cut()
        call.record(0 if left else status, responded, ok=False)
    else:
        call.record(status, responded, ok=True)


def status_of(reply: Reply) -> int:
    """The handler's status; 500 for one that is no final HTTP status, which would leave the client waiting."""
    return reply.status if 200 <= reply.status <= 599 else 500


def handler_headers(pairs: Iterable[tuple[str, str]]) -> Headers:
    """The handler's response headers but those the server writes. Raises InternalError for one HTTP cannot carry."""
    headers = []
    for name, value in pairs:
        if name.lower() in _RESERVED:
            continue
        if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise InternalError(f"Handler set an invalid response header: {name!r}: {value!r}")
        headers.append((name.encode("ascii"), _encode(value)))
    return headers


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
