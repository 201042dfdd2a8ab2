"""A loaded model whose batches are steps: the handler's criteria say which of their requests go on to the next one."""

from __future__ import annotations

from modelserver.wire.frames import DESCRIBE, Batch, Load, Replies
from modelserver.worker.batch_context import BatchContext
from modelserver.worker.service import ProfiledService, Service
from modelserver.worker.steps import Steps, StepTranslator
from modelserver.worker.translation import Translator
from modelserver.worker.updates import Updates
from ts.channel import Channel
from ts.entry_point import Handle
from ts.metrics.metric_cache_abstract import MetricCacheAbstract


class ContinuousService(Service):
    """A service that keeps what its requests have asked for until their last step."""

    def __init__(
        self,
        frame: Load,
        handlers: tuple[Handle, Handle],
        context: BatchContext,
        metrics: MetricCacheAbstract,
        updates: Updates,
    ) -> None:
        self._steps = Steps()
        judged = self._steps.judged(handlers[0]), self._steps.judged(handlers[1])
        super().__init__(frame, judged, context, metrics, updates)

    @classmethod
    def _profiled(cls) -> type[Service]:
        return ProfiledContinuousService

    def _new_translator(self, frame: Load, handlers: tuple[Handle, Handle], *, decode: bool) -> Translator:
        self._step_translator = StepTranslator(frame, *handlers, self._steps, decode=decode)
        return self._step_translator

    def handle(self, batch: Batch) -> Replies:
        """Answer a step of every request of a batch. No `Exception` passes, whatever the handler does.

        Raises ProtocolError for a request that is said to go on, but has not begun here.
        """
        if batch.kind == DESCRIBE:
            return self._describe(batch)
        batch = self._steps.begin(batch)
        replies = super().handle(batch)
        if replies.code == 200:
            replies.going_on = self._going_on(batch)
        self._steps.end(batch, replies.going_on)
        return replies

    def _going_on(self, batch: Batch) -> list[int]:
        if batch.kind < DESCRIBE:
            return self._steps.going_on()
        last = self._step_translator.last
        return last.going_on if last is not None else []

    def _describe(self, batch: Batch) -> Replies:
        """Between two steps: the criteria are about other requests."""
        context = self._context
        criteria, context.stopping_criteria = context.stopping_criteria, None
        try:
            return super().handle(batch)
        finally:
            context.stopping_criteria = criteria


class ProfiledContinuousService(ProfiledService, ContinuousService):
    """The same, writing down where the time of each step goes."""


def load_service(frame: Load, channel: Channel) -> Service:
    """The service that the frontend asks for. Raises `LoadFailed`; SystemExit and KeyboardInterrupt pass."""
    return (ContinuousService if frame.continuous else Service).load(frame, channel)
