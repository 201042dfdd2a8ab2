"""From a request to a job of the engine, and from its replies to what a method answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial

from modelserver.dialect.ports import Engine
from modelserver.dialect.request_ids import RequestIds
from modelserver.engine.job import Job, Overrun, tell
from modelserver.errors import BadRequest, InternalError, MalformedMessage, ServiceUnavailable
from modelserver.rpc.call import Call
from modelserver.wire.frames import PREDICT, Part, Reply, Request

Answered = asyncio.Future[Job]


class Jobs:
    """What the methods that ask workers have in common."""

    def __init__(self, engine: Engine, max_response_size: int) -> None:
        self._engine = engine
        self._limit = max_response_size  # bytes of a response that is put together from pieces
        self._loop = asyncio.get_running_loop()
        self._ids = RequestIds()

    def new(
        self,
        model: str,
        version: str,
        parts: list[Part],
        patience: float,
        extra: dict[str, str] | None = None,
        kind: int = PREDICT,
    ) -> Job:
        """A job for a version ("": the default one). Raises BadRequest."""
        if not model:
            raise BadRequest("Parameter model_name is required.")
        wanted = Request(self._ids.next(), parts, [], extra or {})
        job = Job(wanted, model, version or "default", time.monotonic(), _forget, kind)
        job.size = sum(len(part.value) for part in parts)
        job.timeout = patience
        return job

    def begin(self, call: Call, job: Job, version: str) -> Answered:
        """Submit the only job of a call, which counts as soon as the model exists. Raises what the engine raises."""
        try:
            answered = self.submit(job, version)
        except ServiceUnavailable:
            call.job = job
            raise
        call.job = job
        return answered

    def submit(self, job: Job, version: str) -> Answered:
        """Give a job to a version ("": the default one). Raises what the engine raises."""
        answered: Answered = self._loop.create_future()
        job.done = partial(tell, answered)
        self._engine.submit(job, version or None)
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
            raise _told(job.take_error())  # no name holds it: it refers to this frame from now on
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

    async def whole(self, job: Job, answered: Answered) -> bytes:
        """The body of the reply, all its pieces put together; whoever leaves early takes the job along.

        Raises the job's ServerError, InternalError for more than a reply may have.
        """
        try:
            reply = await self.first_reply(job, answered)
            return reply.body if job.chunks is None else await self._joined(job, reply)
        except BaseException:
            self.withdraw(job)
            raise

    async def _joined(self, job: Job, reply: Reply) -> bytes:
        joined = bytearray()
        async for piece in self.pieces(job, reply):
            joined += piece
            if len(joined) > self._limit:
                raise InternalError(f"Response exceeds max_response_size of {self._limit} bytes.")
        return bytes(joined)


def _told(error: Exception) -> Exception:
    """The error of a job; what a worker cannot read was passed on as it came."""
    return MalformedMessage(error.message) if isinstance(error, BadRequest) else error


def _forget(job: Job) -> None:
    pass
