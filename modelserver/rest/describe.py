"""The call that asks a handler to describe itself."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from modelserver.dialect.ports import Engine
from modelserver.engine.job import Job, tell
from modelserver.rest.call import Call
from modelserver.rest.replies import request_headers, submit
from modelserver.wire.frames import DESCRIBE, Reply, Request


async def ask_handler(call: Call, engine: Engine, model: str, version: str | None) -> Reply:
    """The handler's answer to a describe call. Raises the job's ServerError."""
    answered: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
    request = Request(call.request_id, [], request_headers(call.exchange), {"describe": "True"})
    label = "default" if version is None else version
    job = Job(request, model, label, call.exchange.received, partial(tell, answered), DESCRIBE)
    submit(call, engine, job, version)
    call.exchange.on_gone = answered.cancel
    try:
        await answered
    except asyncio.CancelledError:
        engine.cancel(job)
        call.record(0, time.monotonic(), ok=False)
        raise
    if job.reply is None:
        raise job.take_error()
    return job.reply
