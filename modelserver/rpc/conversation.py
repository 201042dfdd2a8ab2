"""`StreamPredictions2`: any number of requests on one call, each a job of its own; errors are part of the answers."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any, Final

from grpc import aio

from modelserver.engine.job import Job
from modelserver.errors import BadRequest, ServerError, ServiceUnavailable
from modelserver.rpc.call import Call
from modelserver.rpc.encoding import prediction_request, prediction_response
from modelserver.rpc.inference import Answered, Inference
from modelserver.rpc.messages import ErrorInfo, PredictionResponse
from modelserver.rpc.render import Refusal, refusal_of_prediction
from modelserver.settings.table import Settings

_AHEAD: Final = 1024  # requests of one call that are read before the first of them is answered
_ERROR_TYPE: Final = "type.googleapis.com/google.rpc.ErrorInfo"


@dataclass(frozen=True, slots=True)
class SequenceKeys:
    """The names of headers, and of inputs, that say to which sequence a request belongs."""

    id: str
    start: str
    end: str

    @classmethod
    def of(cls, settings: Settings) -> SequenceKeys:
        """As configured."""
        return cls(
            settings.ts_header_key_sequence_id,
            settings.ts_header_key_sequence_start,
            settings.ts_header_key_sequence_end,
        )


class Conversations:
    """The method."""

    def __init__(self, inference: Inference, keys: SequenceKeys) -> None:
        self._inference = inference
        self._keys = keys

    async def converse(self, call: Call) -> None:
        """Read until the client sends no more, then answer what is still owed. Raises BadRequest for garbage."""
        await _Conversation(call, self._inference, self._keys).run()


class _Conversation:
    """One call. The answers of a sequence come in the order of its requests, those of others in any."""

    def __init__(self, call: Call, inference: Inference, keys: SequenceKeys) -> None:
        self._call = call
        self._inference = inference
        self._keys = keys
        self._answers: set[asyncio.Task[None]] = set()
        self._last: dict[str, asyncio.Task[None]] = {}  # of each sequence that is owed an answer
        self._room = asyncio.Semaphore(_AHEAD)
        self._pen = asyncio.Lock()  # one message is written at a time

    async def run(self) -> None:
        try:
            await self._room.acquire()
            while (message := await self._call.read()) is not None:
                self._take(message)
                await self._room.acquire()
            while self._answers:
                await asyncio.wait(self._answers)
        finally:
            for answer in self._answers:
                answer.cancel()

    def _take(self, message: bytes) -> None:
        request = prediction_request(message)
        sequence_id, extra = self._sequence_of(request)
        work = self._begin(request, sequence_id, extra)
        answer = asyncio.create_task(self._answer(work, sequence_id, self._last.get(sequence_id)))
        self._answers.add(answer)
        self._last[sequence_id] = answer
        answer.add_done_callback(lambda answer: self._forget(answer, sequence_id, work))

    def _sequence_of(self, request: Any) -> tuple[str, dict[str, str]]:
        """The id ("" if there is none and none is to be made), and the headers that the handler gets."""
        said = {entry.key for entry in request.input if len(entry.value) == 4 and entry.value.lower() == b"true"}
        sequence_id: str = request.sequence_id
        extra = {}
        if not sequence_id and self._keys.start in said:
            sequence_id = f"ts-seq-{uuid.uuid4()}"
            extra[self._keys.start] = "true"
        if self._keys.end in said:
            extra[self._keys.end] = "true"
        return sequence_id, {self._keys.id: sequence_id, **extra}

    def _begin(self, request: Any, sequence_id: str, extra: dict[str, str]) -> tuple[Job, Answered] | Refusal:
        """Submit at once, so that jobs wait in the order of their requests."""
        try:
            if not sequence_id:
                raise BadRequest("Parameter sequenceId is required.")
            job = self._inference.new_job(request, self._call.patience, extra)
            try:
                return job, self._inference.submit(job, request)
            except ServiceUnavailable:
                self._call.record_job(job, ok=False)
                raise
        except ServerError as error:
            return refusal_of_prediction(error)  # not the error, which refers to whoever called this

    def _forget(self, answer: asyncio.Task[None], sequence_id: str, work: tuple[Job, Answered] | Refusal) -> None:
        if answer.cancelled() and not isinstance(work, Refusal):
            self._inference.withdraw(work[0])  # as it does itself, if it had begun
        self._answers.discard(answer)
        if self._last.get(sequence_id) is answer:
            del self._last[sequence_id]
        self._room.release()

    async def _answer(
        self, work: tuple[Job, Answered] | Refusal, sequence_id: str, earlier: asyncio.Task[None] | None
    ) -> None:
        try:
            if isinstance(work, Refusal):
                await _after(earlier)
                await self._refuse(work, sequence_id)
            else:
                await self._send(*work, sequence_id, earlier)
        except aio.BaseError:
            pass  # the client has left, as the call's own task is told

    async def _send(self, job: Job, answered: Answered, sequence_id: str, earlier: asyncio.Task[None] | None) -> None:
        ok = False
        try:
            with self._inference.withdrawing(job):
                reply = await self._inference.first_reply(job, answered)
                await _after(earlier)
                async for piece in self._inference.pieces(job, reply):
                    async with self._pen:
                        await self._call.write(prediction_response(piece, sequence_id))
            ok = True
        except ServerError as error:
            await _after(earlier)
            await self._refuse(refusal_of_prediction(error), sequence_id)
        finally:
            self._call.record_job(job, ok=ok)

    async def _refuse(self, refusal: Refusal, sequence_id: str) -> None:
        async with self._pen:
            await self._call.write(refusal_message(refusal, sequence_id))


def refusal_message(refusal: Refusal, sequence_id: str) -> bytes:
    """An error as a response."""
    response = PredictionResponse()
    if sequence_id:
        response.sequence_id = sequence_id
    response.status.code = refusal.code.value[0]
    response.status.message = refusal.message.encode("utf-8", "replace").decode()
    reason = ErrorInfo(reason=refusal.tag).SerializeToString()
    response.status.details.add(type_url=_ERROR_TYPE, value=reason)
    data: bytes = response.SerializeToString()
    return data


async def _after(earlier: asyncio.Task[None] | None) -> None:
    """Return when an earlier answer is over, however it went."""
    if earlier is not None:
        await asyncio.wait([earlier])
