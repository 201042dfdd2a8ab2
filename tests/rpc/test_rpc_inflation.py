"""Messages that clients compress, and what they may become."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable

import grpc
import pytest
from grpc import aio
from rpc_doubles import MemoryContext, Port

from harness.stubs import message
from modelserver.rpc.listener import Endpoint, Limits, Listener

Code = grpc.StatusCode
PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
LIMIT = 1000


def request(size: int) -> bytes:
    """A request of so many bytes."""
    short: bytes = message("PredictionsRequest", model_name="m", input={"x": b"x" * 500}).SerializeToString()
    return short + b"\x7a" + bytes([0x80 | (rest := size - len(short) - 3) & 0x7F, rest >> 7]) + b"?" * rest


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions"])
def test_packed_messages(method: str, level: int, pack: Callable[[bytes, int], bytes]) -> None:
    async def scene() -> None:
        port = Port(max_request_size=LIMIT)
        context = await port.call(method, pack(request(LIMIT), level))
        assert context.ended is None and len(context.written) == 1
        assert [bytes(part.value) for part in port.engine.jobs[0].request.parts] == [b"x" * 500]
        context = await port.call(method, pack(request(LIMIT + 1), level))
        assert context.ended is not None and context.ended[0] is Code.RESOURCE_EXHAUSTED
        assert port.telemetry.codes == [0, 8] and len(port.engine.jobs) == 1

    asyncio.run(scene())


def test_what_would_be_huge_is_never_made() -> None:
    async def scene() -> None:
        port = Port(max_request_size=LIMIT)
        bomb = gzip.compress(bytes(1 << 24))
        bomb = bomb[: len(bomb) // 2]  # whoever wanted to inflate all of it would find that it breaks off
        context = await port.call("Predictions", bomb)
        assert context.ended is not None and context.ended[0] is Code.RESOURCE_EXHAUSTED

    asyncio.run(scene())


PACKED = gzip.compress(request(LIMIT), mtime=0)
TWICE = gzip.compress(PACKED, mtime=0)


@pytest.mark.parametrize(
    "broken",
    [
        PACKED[:1],
        PACKED[:10],
        PACKED[:-1],
        PACKED[:-5] + b"12345",
        PACKED + b"\0",
        PACKED + PACKED,
        TWICE,
        zlib.compress(request(LIMIT))[:1],
        zlib.compress(request(LIMIT))[:-1],
        zlib.compress(request(LIMIT)) + b"\0",
        b"\x78\x01",
    ],
    ids=["a byte", "a header", "cut", "wrong sum", "more", "twice", "packed twice", "z", "z cut", "z more", "a field"],
)
def test_what_nobody_has_packed(broken: bytes) -> None:
    async def scene() -> None:
        port = Port(max_request_size=LIMIT)
        for method in ("Predictions", "StreamPredictions", "StreamPredictions2", "Ping"):
            context = await port.call(method, broken)
            if method != "Ping" or broken != TWICE:  # which reads nothing of what it gets
                assert context.ended is not None and context.ended[0] is Code.INVALID_ARGUMENT
        assert not port.engine.jobs

    asyncio.run(scene())


def test_a_client_that_leaves_meanwhile() -> None:
    async def scene() -> None:
        port = Port(max_request_size=LIMIT)
        call = port.begin("Predictions", MemoryContext(PACKED))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled() and not port.engine.jobs and port.telemetry.codes == [1]

    asyncio.run(scene())


def test_codings_of_real_clients() -> None:
    async def scene() -> None:
        port = Port(max_request_size=LIMIT)
        bound = Listener("gRPC inference", Endpoint("127.0.0.1", 0), port.board, Limits(LIMIT))
        await bound.listen()
        async with aio.insecure_channel(str(bound.endpoint)) as channel:
            predict = channel.unary_unary(PREDICTIONS)
            for coding in grpc.Compression:
                assert await predict(request(LIMIT), timeout=60, compression=coding) == b"\x0a\x02ok"
            with pytest.raises(aio.AioRpcError, match="max_request_size"):
                await predict(bytes(1 << 16), timeout=60, compression=grpc.Compression.Gzip)
        await bound.close()
        assert len(port.engine.jobs) == len(grpc.Compression)

    asyncio.run(scene())
