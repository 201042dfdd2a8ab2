"""A service for handlers that are coroutines: each batch is run to its end before the next one."""

from __future__ import annotations

import asyncio

from modelserver.tryout.debugged import DebuggedService
from modelserver.wire.frames import Batch, Load, Replies
from modelserver.worker.concurrent_service import BatchChannel, ConcurrentService
from ts.channel import Channel


class AwaitedService(ConcurrentService):
    """Has the event loop that `initialize` finds run while a batch is answered."""

    @classmethod
    def load(cls, frame: Load, channel: Channel) -> ConcurrentService:
        """As in the base class."""
        asyncio.set_event_loop(asyncio.new_event_loop())
        return super().load(frame, channel)

    def handle(self, batch: Batch) -> Replies:
        """Answer every request of a batch."""
        answer = self.answer(batch, BatchChannel(self._context.channel))
        return asyncio.get_event_loop_policy().get_event_loop().run_until_complete(answer)


class DebuggedAwaitedService(DebuggedService, AwaitedService):
    """The same, whose user is taken to the place where the handler failed."""
