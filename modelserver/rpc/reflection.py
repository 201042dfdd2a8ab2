"""The standard reflection service, by which tools learn the methods and messages of a port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any, Final

from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from modelserver.rpc.call import Call
from modelserver.rpc.encoding import parse
from modelserver.rpc.messages import POOL

REFLECTION_SERVICE: Final = "grpc.reflection.v1alpha.ServerReflection"


class Reflection:
    """The method."""

    def __init__(self, services: Collection[str]) -> None:
        self._servicer = ReflectionServicer(sorted(services), pool=POOL)

    async def inform(self, call: Call) -> None:
        """Answer questions about descriptors."""
        async for response in self._servicer.ServerReflectionInfo(_questions(call), call.context):
            await call.write(response.SerializeToString())


async def _questions(call: Call) -> AsyncIterator[Any]:
    while (message := await call.read()) is not None:
        yield parse(reflection_pb2.ServerReflectionRequest, message)
