"""`MicroBatching`: the steps of a handler as a pipeline of threads, fed with slices of the batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from ts.torch_handler.base_handler import PROFILER_AVAILABLE
from ts.torch_handler.profiling import profiling_enabled

__all__ = ["HANDLER_METHODS", "PROFILER_AVAILABLE", "MicroBatching", "WorkerThread", "execute_call"]

HANDLER_METHODS = ["preprocess", "inference", "postprocess"]


@dataclass
class WorkerThread:
    """A thread of one step; `event` is set once it has ended."""

    event: threading.Event
    thread: threading.Thread


@dataclass
class MicroBatch:
    """A slice of a batch on its way through the steps; the last one puts it into `done`."""

    index: int
    data: Any
    done: SimpleQueue[MicroBatch]
    error: BaseException | None = None


@dataclass
class Step:
    """One step of the pipeline: its queue, and the threads that empty it. None in the queue ends one of them."""

    method: str
    queue: SimpleQueue[MicroBatch | None] = field(default_factory=SimpleQueue)
    threads: list[WorkerThread] = field(default_factory=list)
    size: int = 0


def execute_call(
    in_queue: SimpleQueue[MicroBatch | None],
    out_queue: SimpleQueue[MicroBatch | None] | None,
    handle: Callable[[Any], Any],
    thread_local_data: threading.local,
    event: threading.Event,
) -> None:
    """The life of a thread: run `handle` on what comes in and pass it on, also after an exception, until None comes."""
    while (micro_batch := in_queue.get()) is not None:
        if micro_batch.error is None:
            thread_local_data.micro_batch_idx = micro_batch.index
            try:
                micro_batch.data = handle(micro_batch.data)
            except BaseException as error:
                micro_batch.error = error
        target: Any = micro_batch.done if out_queue is None else out_queue
        target.put(micro_batch)
        del micro_batch, target  # hold no request while waiting for the next
    event.set()


class MicroBatching:
    """Assigned to `self.handle` in a handler's `__init__`, it takes the place of `BaseHandler.handle`.

    `parallelism` is the number of threads for each of `HANDLER_METHODS`, 1 where it names none.
    """

    def __init__(
        self, parent_handler: Any, micro_batch_size: int = 1, parallelism: Mapping[str, int] | None = None
    ) -> None:
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self._parallelism: dict[str, int] = {}
        self._local = threading.local()
        self._steps = [Step(method) for method in HANDLER_METHODS]
        self._changing = threading.Lock()
        self._shut_down = False
        self.parallelism = dict(parallelism or {})

    def __call__(self, data: Any, context: Any) -> Any:
        """Answer a batch as `BaseHandler.handle` does; only predictions go through the pipeline."""
        started = time.perf_counter()
        handler = self.handler
        handler.context = context
        if handler._is_describe():
            output = [handler.describe_handle()]
        elif profiling_enabled():
            output, _ = handler._infer_with_profiler(data)
        elif handler._is_explain():
            output = handler.explain_handle(handler.preprocess(data), data)
        else:
            output = self.handle(data)
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return output

    @property
    def parallelism(self) -> dict[str, int]:
        """A copy of what was set."""
        return dict(self._parallelism)

    @parallelism.setter
    def parallelism(self, parallelism: Mapping[str, int]) -> None:
        for method, count in parallelism.items():
            assert method in HANDLER_METHODS, f"{method} is not one of {HANDLER_METHODS}"
            assert count > 0, f"{method} needs at least one thread"
        with self._changing:
            self._parallelism.update(parallelism)
            for position, step in enumerate(self._steps):
                self._resize(step, self._parallelism.get(step.method, 1), self._queue_after(position))

    def handle(self, data: Sequence[Any], context: Any = None) -> list[Any]:
        """The results of a batch, in its order. Raises what the first failing step raises."""
        if self._shut_down:
            raise RuntimeError("the threads of this MicroBatching are shut down")
        done: SimpleQueue[MicroBatch] = SimpleQueue()
        starts = range(0, len(data), self.micro_batch_size)
        for index, start in enumerate(starts):
            self._steps[0].queue.put(MicroBatch(index, data[start : start + self.micro_batch_size], done))
        finished = sorted((done.get() for _ in starts), key=lambda micro_batch: micro_batch.index)
        error = next((micro_batch.error for micro_batch in finished if micro_batch.error is not None), None)
        if error is None:
            return [result for micro_batch in finished for result in micro_batch.data]
        del finished  # the traceback holds this frame, which must not hold the exception and the requests in return
        try:
            raise error
        finally:
            del error

    def get_micro_batch_idx(self) -> int | None:
        """Index of the slice that the calling thread works on, None outside of the pipeline."""
        return getattr(self._local, "micro_batch_idx", None)

    def shutdown(self) -> None:
        """Stop the threads, once they have done what is queued."""
        with self._changing:
            self._shut_down = True
            for step in self._steps:
                self._resize(step, 0, None)
                for worker in step.threads:
                    worker.thread.join()

    def _queue_after(self, position: int) -> SimpleQueue[MicroBatch | None] | None:
        return self._steps[position + 1].queue if position + 1 < len(self._steps) else None

    def _resize(self, step: Step, size: int, out_queue: SimpleQueue[MicroBatch | None] | None) -> None:
        for _ in range(step.size - size):
            step.queue.put(None)
        step.threads = [worker for worker in step.threads if not worker.event.is_set()]
        step.threads += [self._start(step, out_queue) for _ in range(size - step.size)]
        step.size = size

    def _start(self, step: Step, out_queue: SimpleQueue[MicroBatch | None] | None) -> WorkerThread:
        event = threading.Event()
        handle = getattr(self.handler, step.method)
        arguments = (step.queue, out_queue, handle, self._local, event)
        thread = threading.Thread(target=execute_call, args=arguments, name=step.method, daemon=True)
        thread.start()
        return WorkerThread(event, thread)
