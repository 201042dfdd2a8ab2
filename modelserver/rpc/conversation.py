"""Calls with any number of requests, each a job of its own; errors are part of the answers.

`StreamPredictions2` speaks so, and `ModelStreamInfer`; what they say is up to a *tongue*.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from grpc import aio

from modelserver.engine.job import Job
from modelserver.errors import ServerError, ServiceUnavailable
from modelserver.rpc.call import Call
from modelserver.rpc.jobs import Answered, Jobs
from modelserver.rpc.render import Refusal

# What of one call is read before the first of it is answered: requests, and bytes of them and of their answers.
_AHEAD: Final = 1024
_AHEAD_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Question:
    """A request as it was understood: a job for a version ("": the default one), or why there is none."""

    job: Job | Refusal
    version: str
    order: str  # answers with the same order come in that of their questions, others in any
    id: str  # as the answers repeat it


class Tongue(Protocol):
    """How the requests of a method are read and their answers written."""

    def question(self, message: bytes, patience: float) -> Question:
        """Understand a request. Raises MalformedMessage for one that ends the call."""

    def answer(self, body: bytes, question: Question) -> bytes:
        """A reply of a worker, or a piece of one, as a message."""

    def refuse(self, error: ServerError) -> Refusal:
        """An error in the words of the method."""

    def refusal(self, refusal: Refusal, question: Question) -> bytes:
        """An error as a message."""


class Conversations:
    """The method."""

    def __init__(self, jobs: Jobs, tongue: Tongue) -> None:
        self._jobs = jobs
        self._tongue = tongue

    async def converse(self, call: Call) -> None:
        """Read until the client sends no more, then answer what is still owed. Raises BadRequest for garbage."""
        await _Conversation(call, self._jobs, self._tongue).run()


class _Conversation:
    """One call."""

    def __init__(self, call: Call, jobs: Jobs, tongue: Tongue) -> None:
        self._call = call
        self._jobs = jobs
        self._tongue = tongue
        self._answers: set[asyncio.Task[None]] = set()
        self._last: dict[str, asyncio.Task[None]] = {}  # of each order that is owed an answer
        self._held = 0  # bytes of requests without an answer, and of answers that wait to be written
        self._left = asyncio.Event()  # one of them
        self._pen = asyncio.Lock()  # one message is written at a time

    async def run(self) -> None:
        try:
            while (message := await self._call.read()) is not None:
                self._take(message)
                await self._have_room()
            while self._answers:
                await asyncio.wait(self._answers)
        finally:
            for answer in self._answers:
                answer.cancel()

    async def _have_room(self) -> None:
        while len(self._answers) >= _AHEAD or self._held > _AHEAD_BYTES:
            self._left.clear()
            await self._left.wait()

    def _take(self, message: bytes) -> None:
        question = self._tongue.question(message, self._call.patience)
        work = self._begin(question)
        answer = asyncio.create_task(self._answer(work, question, self._last.get(question.order)))
        self._answers.add(answer)
        self._last[question.order] = answer
        size = len(message)
        self._held += size
        answer.add_done_callback(lambda answer: self._forget(answer, question.order, work, size))

    def _begin(self, question: Question) -> tuple[Job, Answered] | Refusal:
        """Submit at once, so that jobs wait in the order of their requests."""
        job = question.job
        if isinstance(job, Refusal):
            return job
        try:
            return job, self._jobs.submit(job, question.version)
        except ServerError as error:
            if isinstance(error, ServiceUnavailable):  # the model exists, so the request counts
                self._call.record_job(job, ok=False)
            return self._tongue.refuse(error)  # not the error, which refers to whoever called this

    def _forget(self, answer: asyncio.Task[None], order: str, work: tuple[Job, Answered] | Refusal, size: int) -> None:
        if answer.cancelled() and not isinstance(work, Refusal):
            self._jobs.withdraw(work[0])  # as it does itself, if it had begun
        self._answers.discard(answer)
        if self._last.get(order) is answer:
            del self._last[order]
        self._let_go(size)

    def _let_go(self, size: int) -> None:
        self._held -= size
        self._left.set()

    async def _answer(
        self, work: tuple[Job, Answered] | Refusal, question: Question, earlier: asyncio.Task[None] | None
    ) -> None:
        try:
            if isinstance(work, Refusal):
                await _after(earlier)
                await self._refuse(work, question)
            else:
                await self._send(*work, question, earlier)
        except aio.BaseError:
            pass  # the client has left, as the call's own task is told

    async def _send(self, job: Job, answered: Answered, question: Question, earlier: asyncio.Task[None] | None) -> None:
        ok, size = False, 0
        try:
            with self._jobs.withdrawing(job):
                reply = await self._jobs.first_reply(job, answered)
                size = len(reply.body)
                self._held += size
                await _after(earlier)
                async for piece in self._jobs.pieces(job, reply):
                    async with self._pen:
                        await self._call.write(self._tongue.answer(piece, question))
            ok = True
        except ServerError as error:
            await _after(earlier)
            await self._refuse(self._tongue.refuse(error), question)
        finally:
            self._let_go(size)
            self._call.record_job(job, ok=ok)

    async def _refuse(self, refusal: Refusal, question: Question) -> None:
        async with self._pen:
            await self._call.write(self._tongue.refusal(refusal, question))


async def _after(earlier: asyncio.Task[None] | None) -> None:
    """Return when an earlier answer is over, however it went."""
    if earlier is not None:
        await asyncio.wait([earlier])
