"""The standard health service."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from modelserver.dialect.ports import Engine
from modelserver.errors import ResourceNotFound
from modelserver.rpc.call import Call
from modelserver.rpc.encoding import parse
from modelserver.rpc.messages import HealthCheckRequest, HealthCheckResponse

_PERIOD: Final = 1.0  # seconds; health changes with the passing of time, so nothing could tell of it
SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3


class Health:
    """The methods; the server and all its services are as healthy as the engine."""

    def __init__(self, engine: Engine, services: Collection[str]) -> None:
        self._engine = engine
        self._services = {"", *services}

    async def check(self, call: Call) -> bytes:
        """The state now. Raises ResourceNotFound."""
        status = self._status(await self._service(call))
        if status == UNKNOWN:
            raise ResourceNotFound
        return _response(status)

    async def watch(self, call: Call) -> None:
        """The state now and each time it has changed, until the client leaves."""
        service, last = await self._service(call), None
        while True:
            status = self._status(service)
            if status != last:
                await call.write(_response(status))
                last = status
            await asyncio.sleep(_PERIOD)

    async def _service(self, call: Call) -> str:
        name: str = parse(HealthCheckRequest, await call.read_one()).service
        return name

    def _status(self, service: str) -> int:
        if service not in self._services:
            return UNKNOWN
        return SERVING if self._engine.healthy() else NOT_SERVING


def _response(status: int) -> bytes:
    data: bytes = HealthCheckResponse(status=status).SerializeToString()
    return data
