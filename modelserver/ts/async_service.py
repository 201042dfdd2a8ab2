"""`AsyncService`: many batches of the classic protocol at once, for a handler whose `handle` is a coroutine."""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Iterable
from typing import Any

from ts.protocol.codec import PREDICT_MSG, retrieve_msg
from ts.service import Service, answer, judge, refuse

logger = logging.getLogger(__name__)


async def predict(service: Service, batch: Iterable[dict[str, Any]]) -> bytes | None:
    """The encoded answer to a batch; its context is a copy, so that batches that run at once do not mix."""
    context = copy.copy(service.context)
    context.metrics = copy.copy(context.metrics)
    rows = service.enter(batch, context)
    started = time.perf_counter()
    try:
        result = await service.entry_point(rows, context)
    except Exception as error:
        return refuse(context, *judge(error))
    return answer(context, result, time.perf_counter() - started)


class AsyncService:
    """Reads requests from the socket of a loaded service and sends each answer when it is there."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._running: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        """Serve on the current event loop, until the frontend is gone: then `SystemExit` passes."""
        asyncio.get_event_loop_policy().get_event_loop().run_until_complete(self.fetch_batches())

    async def fetch_batches(self) -> None:
        """Start a task for every batch that comes in. Raises `ValueError` for what is no batch."""
        loop = asyncio.get_running_loop()
        while True:
            command, batch = await loop.run_in_executor(None, retrieve_msg, self.service.context.cl_socket)
            if command != PREDICT_MSG:
                raise ValueError(f"Received unknown command: {command!r}")
            task = loop.create_task(self.call_predict(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def call_predict(self, batch: Iterable[dict[str, Any]]) -> None:
        """Answer one batch."""
        self.send_response(await predict(self.service, batch))

    def send_response(self, response: bytes | None) -> None:
        """Write one answer; it is whole, because only the loop's thread writes."""
        if response is not None:
            self.service.context.cl_socket.sendall(response)
