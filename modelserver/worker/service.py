"""One loaded model: takes batches, calls the handler, gives replies."""

from __future__ import annotations

import logging
import os
from functools import cached_property
from time import perf_counter_ns
from uuid import uuid4

from modelserver.wire.frames import DESCRIBE, Batch, Dimensions, Failure, Load, Metric, Replies, Reply
from modelserver.worker.batch_context import BatchContext
from modelserver.worker.failures import HANDLER_CONTRACT, LoadFailed, Refusal, ResultRejected, failure_of, judge
from modelserver.worker.loading import load_handler, make_context, make_metrics
from modelserver.worker.place import place_of
from modelserver.worker.profiled import ProfileFile, profiling_asked
from modelserver.worker.replies import check_result, encode_replies
from modelserver.worker.rows import decoded_row, raw_row
from modelserver.worker.translation import Translator
from modelserver.worker.updates import Updates
from ts.channel import Channel
from ts.entry_point import Handle
from ts.metrics.metric_cache_abstract import MetricCacheAbstract
from ts.service import PREDICTION_METRIC

__all__ = ["Channel", "LoadFailed", "Service"]

logger = logging.getLogger(__name__)


class Service:
    """A handler with its model, fed by the worker's loop."""

    def __init__(
        self,
        frame: Load,
        handlers: tuple[Handle, Handle],
        context: BatchContext,
        metrics: MetricCacheAbstract,
        updates: Updates,
    ) -> None:
        """`handlers`: what answers batches, in its envelope (if there is one) and without."""
        self._handle = handlers[0]
        self._context = context
        self._metrics = metrics
        self._updates = updates
        self._limit = frame.max_response_size  # bytes of one body
        decode = os.environ.get("TS_DECODE_INPUT_REQUEST", "true").lower() == "true"
        self._row = decoded_row if decode else raw_row
        self._translator = self._new_translator(frame, handlers, decode=decode)
        self._labels: Dimensions = [("ModelName", context.model_name), ("Level", "Model")]

    @classmethod
    def load(cls, frame: Load, channel: Channel) -> Service:
        """Import the handler and load the model. Raises `LoadFailed`; SystemExit and KeyboardInterrupt pass."""
        updates = Updates(channel)
        metrics = make_metrics(frame, updates)
        metrics.set_request_ids(str(uuid4()))  # metrics recorded while the model loads belong to this
        context = make_context(frame, channel, metrics)
        handlers = load_handler(frame, context)
        kind = cls._profiled() if profiling_asked() else cls
        return kind(frame, handlers, context, metrics, updates)

    @classmethod
    def _profiled(cls) -> type[Service]:
        return ProfiledService

    def _new_translator(self, frame: Load, handlers: tuple[Handle, Handle], *, decode: bool) -> Translator:
        return Translator(frame, *handlers, decode=decode)

    def handle(self, batch: Batch) -> Replies:
        """Answer every request of a batch. No `Exception` passes, whatever the handler does."""
        if batch.kind > DESCRIBE:
            return self._handle_translated(batch)
        context = self._context
        stream = context.enter(batch)
        self._metrics.request_ids = context.request_ids
        self._updates.hold()
        started = perf_counter_ns()
        elapsed = 0
        try:
            rows = list(map(self._row, batch.requests))
            started = perf_counter_ns()
            result = self._handle(rows, context)
            elapsed = perf_counter_ns() - started
            check_result(result, len(rows), context.model_name)
            replies = encode_replies(result, context, stream.begun, self._limit)
        except Exception as error:
            return self._refuse(batch, error, elapsed or perf_counter_ns() - started)
        finally:
            context.leave()
        updates = self._updates.release()
        updates.append(self._prediction_time(batch, elapsed))
        return Replies(batch.id, 200, "", replies, updates, elapsed)

    def _handle_translated(self, batch: Batch) -> Replies:
        """The same for KServe's protocols; requests that cannot be read fail alone, and are not seen by the handler."""
        context = self._context
        context.enter(batch)
        self._updates.hold()
        started = perf_counter_ns()
        elapsed = 0
        failed: list[Reply] = []
        try:
            translation = self._translator.read(batch)
            failed = translation.failed
            stream = translation.stream(batch, context.channel)
            context.narrow(translation.requests, stream)
            self._metrics.request_ids = context.request_ids
            started = perf_counter_ns()
            result = self._translator.handle_of(batch)(translation.rows, context) if translation.rows else []
            elapsed = perf_counter_ns() - started
            replies = translation.replies(result, context, stream.begun)
        except Exception as error:
            refused = self._refuse(batch, error, elapsed or perf_counter_ns() - started)
            return refused_apart(refused, failed)
        finally:
            context.leave()
        updates = self._updates.release()
        if translation.rows:
            updates.append(self._prediction_time(batch, elapsed))
        return Replies(batch.id, 200, "", replies, updates, elapsed, None, [reply.index for reply in failed])

    def _prediction_time(self, batch: Batch, elapsed: int) -> Metric:
        ids = ",".join([request.id for request in batch.requests])
        return Metric(PREDICTION_METRIC, "Milliseconds", round(elapsed / 1e6, 2), self._labels, "GAUGE", ids)

    def _refuse(self, batch: Batch, error: BaseException, elapsed: int) -> Replies:
        """The same answer for every request of the batch, and the reason in the model log."""
        if isinstance(error, ResultRejected):
            refusal, failure = _rejected(error, self._handle)
        else:
            refusal, failure = _raised(error)
        updates = self._updates.release()
        if refusal.code == 200:  # a PredictionException may say so
            replies = [Reply(index, b"error") for index in range(len(batch.requests))]
            return Replies(batch.id, 200, "", replies, updates, elapsed)
        return Replies(batch.id, refusal.code, refusal.message, [], updates, elapsed, failure)


class ProfiledService(Service):
    """A service that writes down where the time of each batch goes."""

    _file = cached_property(lambda _: ProfileFile())

    def handle(self, batch: Batch) -> Replies:
        """As in the base class."""
        return self._file.run(super().handle, batch)


def refused_apart(refused: Replies, failed: list[Reply]) -> Replies:
    """The refusal of a batch, but for the requests that have failed before for reasons of their own."""
    if failed:
        alone = {reply.index: reply for reply in failed}
        refused.failed = list(alone)
        refused.replies = [alone.pop(reply.index, reply) for reply in refused.replies] or list(alone.values())
    return refused


def _rejected(error: ResultRejected, handle: Handle) -> tuple[Refusal, Failure]:
    """The handler returned, but not what can be sent; the log says where its code is, which no client needs to know."""
    log = str(error)
    logger.error(log, exc_info=error.__cause__)
    if error.failure.cause == HANDLER_CONTRACT:
        logger.error("%s\n%s", error.failure.detail, place_of(handle))
    return Refusal(error.code, error.message, log), error.failure


def _raised(error: BaseException) -> tuple[Refusal, Failure]:
    """The handler raised."""
    refusal = judge(error)
    failure = failure_of(refusal.cause, error)
    logger.error("%s\n%s", refusal.log, failure.traceback.rstrip())
    return refusal, failure
