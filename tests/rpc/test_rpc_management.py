"""Management calls: fields as parameters, and changes that outlive their clients."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from rpc_doubles import MemoryContext, Port, until

from harness.stubs import message
from modelserver.rpc.messages import HealthCheckRequest, HealthCheckResponse, ManagementResponse


def sent(name: str, **fields: Any) -> bytes:
    data: bytes = message(name, **fields).SerializeToString()
    return data


def said(context: MemoryContext) -> str:
    (data,) = context.written
    text: str = ManagementResponse.FromString(data).msg
    return text


def test_fields_that_are_not_given() -> None:
    async def scene() -> None:
        port = Port("management", enable_model_api=True)
        await port.call("RegisterModel", sent("RegisterModelRequest", url="m.mar"))
        registration = port.engine.calls[0]
        given = {name: getattr(registration, name) for name in type(registration).__slots__}
        assert given.pop("url") == "m.mar" and given.pop("synchronous") is False
        assert not any(given.values()) and given["initial_workers"] is None and given["batch_size"] is None

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, (1, 1)),
        ({"min_worker": -3}, (1, 1)),
        ({"min_worker": 2}, (2, 2)),
        ({"max_worker": 4}, (1, 4)),
        ({"min_worker": 2, "max_worker": -1}, (2, 2)),
    ],
)
def test_bounds_of_scaling(fields: dict[str, int], wanted: tuple[int, int]) -> None:
    async def scene() -> None:
        port = Port("management")
        await port.call("ScaleWorker", sent("ScaleWorkerRequest", model_name="m", **fields))
        assert port.engine.calls == [("m", None, *wanted, False)]

    asyncio.run(scene())


def test_a_registration_outlives_its_client() -> None:
    async def scene() -> None:
        port = Port("management", enable_model_api=True)
        port.engine.gate = asyncio.Event()
        call = port.begin("RegisterModel", MemoryContext(sent("RegisterModelRequest", url="m.mar")))
        await until(lambda: port.engine.calls)
        call.cancel()
        await asyncio.wait([call])
        port.engine.gate.set()
        await until(lambda: "registered" in port.engine.calls)
        assert port.telemetry.codes == [1]

    asyncio.run(scene())


def test_texts() -> None:
    async def scene() -> None:
        port = Port("management", enable_model_api=True)
        registered = await port.call("RegisterModel", sent("RegisterModelRequest", url="m.mar"))
        assert said(registered) == 'Model "m" Version: 1.0 registered with 1 initial workers'
        removed = await port.call("UnregisterModel", sent("UnregisterModelRequest", model_name="m"))
        assert said(removed) == 'Model "m" unregistered'
        default = await port.call("SetDefault", sent("SetDefaultRequest", model_name="m", model_version="2"))
        assert said(default) == 'Default version successfully updated for model "m" to "2"'

    asyncio.run(scene())


def test_health() -> None:
    async def scene() -> None:
        port = Port(enable_grpc_health=True)

        async def check(service: str) -> MemoryContext:
            asked = HealthCheckRequest(service=service).SerializeToString()
            return await port.call("/grpc.health.v1.Health/Check", asked)

        for service in ("", "org.pytorch.serve.grpc.inference.InferenceAPIsService"):
            assert status_of(await check(service)) == 1
        port.engine.is_healthy = False
        assert status_of(await check("")) == 2
        context = await check("org.pytorch.serve.grpc.management.ManagementAPIsService")
        assert context.ended is not None and context.ended[0] is grpc.StatusCode.NOT_FOUND

    asyncio.run(scene())


def status_of(context: MemoryContext) -> int:
    (data,) = context.written
    status: int = HealthCheckResponse.FromString(data).status
    return status
