"""What a call held is let go with its last answer, not when the collector happens to look."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from rpc_doubles import MemoryContext, Port, until

from harness.stubs import message
from modelserver.engine.job import Chunks, Job
from modelserver.errors import ServerError, ServiceUnavailable, WorkerError
from modelserver.wire.frames import Reply

REQUEST = message("PredictionsRequest", model_name="m", sequence_id="s", input={"x": b"x"}).SerializeToString()
INFER_REQUEST = message("ModelInferRequest", model_name="m", raw_input_contents=[b"x"]).SerializeToString()


class Witness:
    """Stands for the body of a request: it is gone when the job is."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def succeeding(job: Job) -> Reply:
    return Reply(0, b"ok")


def failing(job: Job) -> ServerError:
    return WorkerError(503, "no")


def refusing(job: Job) -> None:
    raise ServiceUnavailable("full")


def stumbling(job: Job) -> None:
    raise KeyError("ours")


def breaking(job: Job) -> Reply:
    job.chunks = Chunks()
    job.chunks.fail(WorkerError(500, "broken"))
    return Reply(0, b"first")


def silent(job: Job) -> None:
    """The client leaves meanwhile."""


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    ("method", "request_sent"),
    [
        ("Predictions", REQUEST),
        ("StreamPredictions", REQUEST),
        ("StreamPredictions2", REQUEST),
        ("/inference.GRPCInferenceService/ModelInfer", INFER_REQUEST),
        ("/inference.GRPCInferenceService/ModelStreamInfer", INFER_REQUEST),
    ],
)
@pytest.mark.parametrize("answer", [succeeding, failing, refusing, stumbling, breaking, silent])
def test_nothing_stays(method: str, request_sent: bytes, answer: Callable[[Job], Reply | ServerError | None]) -> None:
    witnesses: list[weakref.ref[Witness]] = []

    async def scene() -> None:
        port = Port(ts_open_inference_protocol=True)

        def watch(job: Job) -> Reply | ServerError | None:
            witness = Witness()
            job.request.extra["witness"] = witness  # type: ignore[assignment]
            witnesses.append(weakref.ref(witness))
            return answer(job)

        port.engine.answer = watch
        call = port.begin(method, MemoryContext(request_sent, *([None] if answer is silent else [])))
        await until(lambda: witnesses)
        if answer is silent:
            await asyncio.sleep(0)
            call.cancel()
        await asyncio.wait([call])
        del call
        port.engine.jobs.clear()
        port.engine.cancelled.clear()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert witnesses[0]() is None

    asyncio.run(scene())


def test_no_second_copy_of_tensors_stays_while_they_are_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """protobuf keeps what it has read of a request for as long as that lives."""
    requests: list[weakref.ref[object]] = []

    def watched(message_class: object, data: bytes) -> object:
        class Read:
            model_name, model_version, id = "m", "", ""
            parameters: ClassVar[dict[str, object]] = {}

        read = Read()
        requests.append(weakref.ref(read))
        return read

    monkeypatch.setattr("modelserver.rpc.open_inference.parse", watched)

    async def scene() -> None:
        port = Port(ts_open_inference_protocol=True)
        port.engine.answer = silent
        call = port.begin("/inference.GRPCInferenceService/ModelInfer", MemoryContext(INFER_REQUEST))
        await until(lambda: port.engine.jobs)
        await asyncio.sleep(0)
        assert requests[0]() is None
        call.cancel()
        await asyncio.wait([call])

    asyncio.run(scene())
