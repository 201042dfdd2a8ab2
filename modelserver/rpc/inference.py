"""`InferenceAPIsService`: predictions with one response or many, and the ping."""

from __future__ import annotations

from typing import Any, Final

from modelserver.dialect.json_text import json_text
from modelserver.dialect.ports import Engine
from modelserver.engine.job import Job
from modelserver.rpc.call import Call
from modelserver.rpc.encoding import prediction_request, prediction_response
from modelserver.rpc.jobs import Answered, Jobs
from modelserver.rpc.messages import TorchServeHealthResponse
from modelserver.wire.frames import Part

_HEALTHY: Final = TorchServeHealthResponse(health=json_text({"status": "Healthy"})).SerializeToString()
_UNHEALTHY: Final = TorchServeHealthResponse(health=json_text({"status": "Unhealthy"})).SerializeToString()


class Inference:
    """The methods; the conversation has a module of its own."""

    def __init__(self, engine: Engine, jobs: Jobs) -> None:
        self._engine = engine
        self._jobs = jobs

    async def ping(self, call: Call) -> bytes:
        """Whether every model has its minimum of healthy workers; always a success."""
        await call.read_one()
        state: bytes = _HEALTHY if self._engine.healthy() else _UNHEALTHY
        return state

    async def predict(self, call: Call) -> bytes:
        """One response; what a handler sends in pieces is put together."""
        job, answered = self._begin(call, await call.read_one())
        with self._jobs.withdrawing(job):
            reply = await self._jobs.first_reply(job, answered)
            return prediction_response(await self._jobs.whole(job, reply))

    async def stream(self, call: Call) -> None:
        """A response for every piece, the last one for what the handler returns."""
        job, answered = self._begin(call, await call.read_one())
        with self._jobs.withdrawing(job):
            reply = await self._jobs.first_reply(job, answered)
            async for piece in self._jobs.pieces(job, reply):
                await call.write(prediction_response(piece))

    def _begin(self, call: Call, message: bytes) -> tuple[Job, Answered]:
        request = prediction_request(message)
        job = self._jobs.new(request.model_name, request.model_version, parts_of(request), call.patience)
        return job, self._jobs.begin(call, job, request.model_version)


def parts_of(request: Any) -> list[Part]:
    """The inputs of a `PredictionsRequest`, in the client's order."""
    return [Part(entry.key, "", entry.value) for entry in request.input]
