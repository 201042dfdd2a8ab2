"""Predictions and explanations: the hot path."""

from __future__ import annotations

from modelserver.engine.job import Job
from modelserver.errors import ResourceNotFound
from modelserver.rest.body import parts_of
from modelserver.rest.call import Call
from modelserver.rest.ports import Engine
from modelserver.rest.replies import handler_headers, reply_to, request_headers, status_of, stream
from modelserver.rest.router import Endpoint
from modelserver.wire.frames import EXPLAIN, PREDICT, Request


def prediction(engine: Engine, *, explain: bool) -> Endpoint:
    """`/predictions/{model}[/{version}[/{url_path...}]]`, or the same under `/explanations`; any method."""
    kind = EXPLAIN if explain else PREDICT
    explained = str(explain)

    async def predict(call: Call) -> None:
        segments = call.segments
        if len(segments) < 2:
            raise ResourceNotFound
        version = segments[2] if len(segments) > 2 else None
        body = await call.body()
        request = Request(
            call.request_id,
            parts_of(call.header(b"content-type"), body),
            request_headers(call.exchange),
            {"explain": explained, "url_path": "/".join(segments[3:])},
        )
        label = "default" if version is None else version
        job = Job(request, segments[1], label, call.exchange.received, kind)
        job.size = len(body)
        reply = await reply_to(call, engine, job, version)
        if reply is None:
            return
        if job.chunks is not None:
            await stream(call, reply, job.chunks)
        else:
            await call.respond(status_of(reply), reply.body, handler_headers(reply.headers), ok=True)

    return predict
