"""`InferenceAPIsService`: predictions with one response or many, and the ping."""

from __future__ import annotations

from typing import Any, Final

from modelserver.dialect.json_text import json_text
from modelserver.dialect.ports import Engine
from modelserver.engine.job import Job, Membership
from modelserver.rpc.call import Call
from modelserver.rpc.encoding import prediction_request, prediction_response
from modelserver.rpc.jobs import Answered, Jobs
from modelserver.rpc.messages import TorchServeHealthResponse
from modelserver.settings.sequence_keys import SequenceKeys
from modelserver.wire.frames import Part

_HEALTHY: Final = TorchServeHealthResponse(health=json_text({"status": "Healthy"})).SerializeToString()
_UNHEALTHY: Final = TorchServeHealthResponse(health=json_text({"status": "Unhealthy"})).SerializeToString()


class Inference:
    """The methods; the conversation has a module of its own."""

    def __init__(self, engine: Engine, jobs: Jobs, keys: SequenceKeys) -> None:
        self._engine = engine
        self._jobs = jobs
        self._keys = keys

    async def ping(self, call: Call) -> bytes:
        """Whether every model has its minimum of healthy workers; always a success."""
        await call.read_one()
        state: bytes = _HEALTHY if self._engine.healthy() else _UNHEALTHY
        return state

    async def predict(self, call: Call) -> bytes:
        """One response; what a handler sends in pieces is put together."""
        job, answered = self._begin(call, await call.read_one())
        sequence_id = self._sequence_of(job)
        return prediction_response(await self._jobs.whole(job, answered), sequence_id)

    async def stream(self, call: Call) -> None:
        """A response for every piece, the last one for what the handler returns."""
        job, answered = self._begin(call, await call.read_one())
        sequence_id = self._sequence_of(job)
        with self._jobs.withdrawing(job):
            reply = await self._jobs.first_reply(job, answered)
            async for piece in self._jobs.pieces(job, reply):
                await call.write(prediction_response(piece, sequence_id))

    def _begin(self, call: Call, message: bytes) -> tuple[Job, Answered]:
        request = prediction_request(message)
        job = self._jobs.new(request.model_name, request.model_version, parts_of(request), call.patience)
        if request.sequence_id:
            job.sequence = Membership(request.sequence_id)
        return job, self._jobs.begin(call, job, request.model_version)

    def _sequence_of(self, job: Job) -> str:
        """The id under which the client finds its sequence again; "" of a model without sequences.

        To be asked before the job is answered: of one that goes on, its worker alone keeps what it has asked for.
        """
        return job.request.extra.get(self._keys.id, "")


def parts_of(request: Any) -> list[Part]:
    """The inputs of a `PredictionsRequest`, in the client's order."""
    return [Part(entry.key, "", entry.value) for entry in request.input]
