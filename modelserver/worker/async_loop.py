"""The loop of an asynchronous worker: every batch is a task, answered when it is done."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol

from modelserver.wire.frames import Batch, Cancel, Replies, Stop, ToWorker
from modelserver.worker.concurrent_service import BatchChannel
from modelserver.worker.loop import Channel, ProtocolError


class AsyncService(Protocol):
    """A loaded model."""

    async def answer(self, batch: Batch, channel: BatchChannel) -> Replies:
        """Runs the handler over one batch; a failure is a reply too."""


def serve_concurrently(channel: Channel, service: AsyncService) -> None:
    """Answer batches on the current event loop until the frontend says stop. Raises ConnectionError once it is gone,
    and whatever else ends a worker.
    """
    asyncio.get_event_loop_policy().get_event_loop().run_until_complete(_Loop(channel, service).run())


class _Loop:
    """Reads frames whenever there are some; only replies to what has been read are sent, so nobody waits for anybody.

    Answers are written at once by a blocking call: the frontend reads as fast as it can, and an answer must not be torn
    apart by another one.
    """

    def __init__(self, channel: Channel, service: AsyncService) -> None:
        self._channel = channel
        self._service = service
        self._running: dict[int, tuple[asyncio.Task[None], BatchChannel]] = {}  # by batch id
        self._stopping = False

    async def run(self) -> None:
        """Serve until the end."""
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._channel.fileno(), self._read)
        self._loop.call_soon(self._read)  # what was read together with the order to load
        try:
            await self._over
        finally:
            self._loop.remove_reader(self._channel.fileno())

    def _read(self) -> None:
        try:
            for frame in self._channel.arrived():
                self._take(frame)
        except Exception as error:  # a broken frame, no memory for one, the end of the frontend
            self._end(error)

    def _take(self, frame: ToWorker) -> None:
        if type(frame) is Batch:
            self._begin(frame)
        elif type(frame) is Cancel:
            if frame.batch in self._running:
                self._running[frame.batch][1].cancel(frame.requests)
        elif type(frame) is Stop:
            self._stopping = True
            self._end_if_stopping()
        else:
            raise ProtocolError(f"unexpected frame {type(frame).__name__}")

    def _begin(self, batch: Batch) -> None:
        channel = BatchChannel(self._channel)
        task = self._loop.create_task(self._answer(batch, channel))
        self._running[batch.id] = (task, channel)
        task.add_done_callback(partial(self._finish, batch.id))

    async def _answer(self, batch: Batch, channel: BatchChannel) -> None:
        self._channel.send(await self._service.answer(batch, channel))

    def _finish(self, batch: int, task: asyncio.Task[None]) -> None:
        del self._running[batch]
        if task.cancelled():
            self._end(ProtocolError("the handler has cancelled the task of another batch"))
        elif (error := task.exception()) is not None:
            self._end(error)
        self._end_if_stopping()

    def _end_if_stopping(self) -> None:
        if self._stopping and not self._running and not self._over.done():
            self._over.set_result(None)

    def _end(self, error: BaseException) -> None:
        self._loop.remove_reader(self._channel.fileno())
        if not self._over.done():
            self._over.set_exception(error)
