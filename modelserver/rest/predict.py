"""Predictions and explanations: the hot path.

No coroutine stands between a request and its job, nor between the job's reply and the response: it would cost as much
as everything else here together. Only streams, which take many turns of the loop, run in a task.
"""

from __future__ import annotations

from functools import partial

from modelserver.dialect.ports import Engine
from modelserver.engine.job import Job
from modelserver.errors import ResourceNotFound
from modelserver.rest.body import parts_of
from modelserver.rest.call import Call
from modelserver.rest.description import describe_model
from modelserver.rest.replies import handler_headers, request_headers, status_of, stream, submit
from modelserver.rest.router import Endpoint, fail
from modelserver.wire.frames import EXPLAIN, PREDICT, Request


def prediction(engine: Engine, *, explain: bool) -> Endpoint:
    """`/predictions/{model}[/{version}[/{url_path...}]]`, or the same under `/explanations`; any method but
    OPTIONS, which describes.
    """
    kind = EXPLAIN if explain else PREDICT
    explained = str(explain)

    def predict(call: Call) -> None:
        segments = call.segments
        if len(segments) < 2:
            raise ResourceNotFound
        version = segments[2] if len(segments) > 2 else None
        exchange = call.exchange
        body = exchange.body()
        parts = parts_of(call.header(b"content-type"), body)
        if exchange.method == "OPTIONS":
            describe_model(call, engine, segments[1], version)
            return
        request = Request(
            call.request_id,
            parts,
            request_headers(exchange),
            {"explain": explained, "url_path": "/".join(segments[3:])},
        )
        label = "default" if version is None else version
        job = Job(request, segments[1], label, exchange.received, partial(answer, call), kind)
        job.size = len(body)
        submit(call, engine, job, version)

    return predict


def answer(call: Call, job: Job) -> None:
    """The job has its first reply, or has failed."""
    reply = job.reply
    if reply is None:
        fail(call, job.error or RuntimeError("a job is over without reply or error"))
        return
    try:
        if job.chunks is not None:
            call.exchange.spawn(stream(call, reply, job.chunks))
        else:
            call.respond(status_of(reply), reply.body, handler_headers(reply.headers), ok=True)
    except Exception as error:
        fail(call, error)
