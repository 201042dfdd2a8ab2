"""A loaded model whose handler is asynchronous: any number of batches at once, on one event loop."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from time import perf_counter_ns
from types import CoroutineType
from typing import Any, Final
from uuid import uuid4

from modelserver.wire.frames import DESCRIBE, Batch, Chunk, Load, Metric, Metrics, Replies, Reply
from modelserver.worker.batch_context import BatchContext
from modelserver.worker.loading import load_handler, make_context, make_metrics
from modelserver.worker.place import place_of
from modelserver.worker.replies import check_result, encode_replies
from modelserver.worker.rows import Row
from modelserver.worker.service import Service, refused_apart
from modelserver.worker.translation import Translation
from modelserver.worker.updates import Updates
from ts.channel import Channel
from ts.context import Context
from ts.entry_point import Handle
from ts.metrics.metric_cache_abstract import MetricCacheAbstract

_ENVELOPED_AT_ONCE: Final = 256  # batches: each takes a thread
_updates_of_task: ContextVar[Updates | None] = ContextVar("updates_of_task", default=None)

logger = logging.getLogger(__name__)


class BatchChannel:
    """The way to the frontend for one batch; knows which of its clients are gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._gone: set[str] = set()

    def send(self, frame: Chunk | Metrics) -> None:
        """Send one frame now. Callable from any thread."""
        self._channel.send(frame)

    def cancel(self, requests: Iterable[str]) -> None:
        """The clients of these requests are gone."""
        self._gone.update(requests)

    def cancelled(self, request_id: str) -> bool:
        """True once the client of this request is known to be gone; never blocks."""
        return request_id in self._gone


class TaskUpdates(Updates):
    """Metric updates, each to the batch in whose task it was made, or in a task or thread that was begun there."""

    def add(self, update: Metric) -> None:
        """Take one update in."""
        updates = _updates_of_task.get()
        if updates is None:
            super().add(update)
        else:
            updates.add(update)


class ConcurrentService(Service):
    """Answers every batch with a copy of itself: what `initialize` has put on the context is shared, what a batch puts
    on it is its own.
    """

    def __init__(
        self,
        frame: Load,
        handlers: tuple[Handle, Handle],
        context: BatchContext,
        metrics: MetricCacheAbstract,
        updates: Updates,
    ) -> None:
        super().__init__(frame, handlers, context, metrics, updates)
        self._plain: set[Handle] = set()  # entry points that turned out to be no coroutines

    @classmethod
    def load(cls, frame: Load, channel: Channel) -> ConcurrentService:
        """As in the base class; `initialize` may run coroutines on the current event loop, which does not run yet."""
        updates = TaskUpdates(channel)
        metrics = make_metrics(frame, updates)
        metrics.set_request_ids(str(uuid4()))
        context = make_context(frame, channel, metrics)
        return cls(frame, load_handler(frame, context, in_threads, run_now), context, metrics, updates)

    async def answer(self, batch: Batch, channel: BatchChannel) -> Replies:
        """Answer every request of a batch, in a task of its own. No `Exception` passes, whatever the handler does."""
        own = copy.copy(self)
        own._metrics = copy.copy(self._metrics)
        own._context = self._context.for_batch(channel, own._metrics)
        own._updates = Updates(channel)
        own._updates.hold()
        _updates_of_task.set(own._updates)
        try:
            return await (own._answer_translated(batch) if batch.kind > DESCRIBE else own._answer(batch))
        finally:
            own._context.leave()

    async def _answer(self, batch: Batch) -> Replies:
        context = self._context
        stream = context.enter(batch)
        self._metrics.request_ids = context.request_ids
        started = perf_counter_ns()
        elapsed = 0
        try:
            rows = list(map(self._row, batch.requests))
            started = perf_counter_ns()
            result = await self._call(self._handle, rows)
            elapsed = perf_counter_ns() - started
            check_result(result, len(rows), context.model_name)
            replies = encode_replies(result, context, stream.begun, self._limit)
        except (Exception, asyncio.CancelledError) as error:
            return self._refuse(batch, error, elapsed or perf_counter_ns() - started)
        return self._answered(batch, replies, [], elapsed)

    async def _answer_translated(self, batch: Batch) -> Replies:
        context = self._context
        context.enter(batch)
        started = perf_counter_ns()
        elapsed = 0
        translation = Translation([], [], self._limit)
        try:
            translation = self._translator.read(batch)
            stream = translation.stream(batch, context.channel)
            context.narrow(translation.requests, stream)
            self._metrics.request_ids = context.request_ids
            started = perf_counter_ns()
            handle = self._translator.handle_of(batch)
            result = await self._call(handle, translation.rows) if translation.rows else []
            elapsed = perf_counter_ns() - started
            replies = translation.replies(result, context, stream.begun)
        except (Exception, asyncio.CancelledError) as error:
            refused = self._refuse(batch, error, elapsed or perf_counter_ns() - started)
            return refused_apart(refused, translation.failed)
        return self._answered(batch, replies, translation.failed, elapsed if translation.rows else None)

    async def _call(self, handle: Handle, rows: list[Row]) -> Any:
        result = handle(rows, self._context)
        if inspect.isawaitable(result):
            return await result
        if handle not in self._plain:
            self._plain.add(handle)
            text = "asyncCommunication is true, but handle is no coroutine function: requests run one at a time"
            logger.warning("%s\n%s", text, place_of(handle))
        return result

    def _answered(self, batch: Batch, replies: list[Reply], failed: list[Reply], elapsed: int | None) -> Replies:
        """`elapsed`: ns in the handler; None if it has seen nothing of the batch."""
        updates = self._updates.release()
        if elapsed is not None:
            updates.append(self._prediction_time(batch, elapsed))
        return Replies(batch.id, 200, "", replies, updates, elapsed or 0, None, [reply.index for reply in failed])


def run_now(loading: CoroutineType[Any, Any, Any]) -> None:
    """On the current event loop, which does not run yet."""
    asyncio.get_event_loop_policy().get_event_loop().run_until_complete(loading)


def in_threads(envelope: type[Any], handle: Handle) -> Handle:
    """Envelopes know nothing of coroutines: each batch gets one of its own, in a thread that waits for the handler."""
    threads = ThreadPoolExecutor(_ENVELOPED_AT_ONCE, "envelope")

    @functools.wraps(handle)
    async def answer(rows: list[Row], context: Context) -> Any:
        loop = asyncio.get_running_loop()

        def call(rows: Any, context: Context) -> Any:
            return asyncio.run_coroutine_threadsafe(_awaited(handle, rows, context), loop).result()

        return await loop.run_in_executor(threads, contextvars.copy_context().run, envelope(call).handle, rows, context)

    return answer


async def _awaited(handle: Handle, rows: Any, context: Context) -> Any:
    result = handle(rows, context)
    return await result if inspect.isawaitable(result) else result
