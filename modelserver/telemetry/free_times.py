"""Since when a worker had been free when a batch was sent to it: what is waited beyond that is waited for company."""

from __future__ import annotations

from typing import Final

from modelserver.telemetry.records import BatchDone, WorkerLoaded

_BATCHES: Final = 4096  # remembered for requests that end behind their batch: streams
_WORKERS: Final = 4096


class FreeTimes:
    """Fed with the records of workers, in their order. Monotonic seconds."""

    def __init__(self) -> None:
        self._latest: dict[str, float] = {}  # by worker
        self._before: dict[tuple[str, float], float] = {}  # by worker and moment of sending, oldest first

    def loaded(self, record: WorkerLoaded) -> None:
        """A worker is free for the first time."""
        self._note(record.worker, record.moment)

    def replied(self, record: BatchDone) -> None:
        """A batch is over; its requests are recorded later."""
        if len(self._before) >= _BATCHES:
            del self._before[next(iter(self._before))]
        latest = self._latest.get(record.worker, record.sent)
        # A batch that was sent before the last one was over: the worker is asynchronous, and always free.
        self._before[record.worker, record.sent] = latest if latest <= record.sent else 0.0
        self._note(record.worker, record.replied)

    def before(self, worker: str, sent: float) -> float:
        """Since when the worker had been free; the moment of sending if nobody knows."""
        return self._before.get((worker, sent), sent)

    def _note(self, worker: str, moment: float) -> None:
        if len(self._latest) >= _WORKERS:
            self._latest.clear()
        self._latest[worker] = moment
