"""`InferenceAPIsService`: predictions with one response or many, and the ping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from modelserver.dialect.json_text import json_text
from modelserver.dialect.request_ids import RequestIds
from modelserver.engine.job import Job, Overrun, tell
from modelserver.errors import BadRequest, InternalError, ServiceUnavailable
from modelserver.rpc.call import Call
from modelserver.rpc.encoding import prediction_request, prediction_response
from modelserver.rpc.messages import TorchServeHealthResponse
from modelserver.rpc.ports import Engine
from modelserver.wire.frames import PREDICT, Part, Reply, Request

Answered = asyncio.Future[Job]

_HEALTHY: Final = TorchServeHealthResponse(health=json_text({"status": "Healthy"})).SerializeToString()
_UNHEALTHY: Final = TorchServeHealthResponse(health=json_text({"status": "Unhealthy"})).SerializeToString()


class Inference:
    """The methods that ask workers."""

    def __init__(self, engine: Engine, max_response_size: int) -> None:
        self._engine = engine
        self._limit = max_response_size  # bytes of a response that is put together from pieces
        self._ids = RequestIds()

    async def ping(self, call: Call) -> bytes:
        """Whether every model has its minimum of healthy workers; always a success."""
        await call.read_one()
        state: bytes = _HEALTHY if self._engine.healthy() else _UNHEALTHY
        return state

    async def predict(self, call: Call) -> bytes:
        """One response; what a handler sends in pieces is put together."""
        job, answered = self._begin(call, await call.read_one())
        with self.withdrawing(job):
            reply = await self.first_reply(job, answered)
            return prediction_response(reply.body if job.chunks is None else await self._join(job, reply))

    async def stream(self, call: Call) -> None:
        """A response for every piece, the last one for what the handler returns."""
        job, answered = self._begin(call, await call.read_one())
        with self.withdrawing(job):
            reply = await self.first_reply(job, answered)
            async for piece in self.pieces(job, reply):
                await call.write(prediction_response(piece))

    def _begin(self, call: Call, message: bytes) -> tuple[Job, Answered]:
        request = prediction_request(message)
        job = self.new_job(request, call.patience)
        try:
            answered = self.submit(job, request)
        except ServiceUnavailable:
            call.job = job  # the model exists, so the request counts
            raise
        call.job = job
        return job, answered

    def new_job(self, request: Any, patience: float, extra: dict[str, str] | None = None) -> Job:
        """A job from a request. Raises BadRequest."""
        if not request.model_name:
            raise BadRequest("Parameter model_name is required.")
        parts = [Part(entry.key, "", entry.value) for entry in request.input]
        label = request.model_version or "default"
        wanted = Request(self._ids.next(), parts, [], extra or {})
        job = Job(wanted, request.model_name, label, time.monotonic(), _forget, PREDICT)
        job.size = sum(len(part.value) for part in parts)
        job.timeout = patience
        return job

    def submit(self, job: Job, request: Any) -> Answered:
        """Give a job to the version that the request names. Raises what the engine raises."""
        answered: Answered = asyncio.get_running_loop().create_future()
        job.done = partial(tell, answered)
        self._engine.submit(job, request.model_version or None)
        return answered

    @contextmanager
    def withdrawing(self, job: Job) -> Iterator[None]:
        """Whoever leaves this block early, because the client has left or for an error, takes the job along."""
        try:
            yield
        except BaseException:
            self.withdraw(job)
            raise

    def withdraw(self, job: Job) -> None:
        """Nobody wants its answer any more."""
        self._engine.cancel(job)

    async def first_reply(self, job: Job, answered: Answered) -> Reply:
        """The reply, or its first piece. Raises the job's ServerError."""
        await answered
        if job.reply is None:
            raise job.take_error()
        return job.reply

    async def pieces(self, job: Job, reply: Reply) -> AsyncIterator[bytes]:
        """The body of a reply, and of all that come after it. Raises the ServerError that breaks them off."""
        yield reply.body
        if job.chunks is None:
            return
        try:
            while (piece := await job.chunks.get()) is not None:
                yield piece
        except Overrun as error:
            raise InternalError(f"The client reads too slowly: {error}.") from error

    async def _join(self, job: Job, reply: Reply) -> bytes:
        """Raises InternalError for more than a reply may have."""
        joined = bytearray()
        async for piece in self.pieces(job, reply):
            joined += piece
            if len(joined) > self._limit:
                raise InternalError(f"Response exceeds max_response_size of {self._limit} bytes.")
        return bytes(joined)


def _forget(job: Job) -> None:
    pass
