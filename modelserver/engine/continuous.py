"""Continuous batching: a worker has a set of running requests, and each batch is one step of all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from modelserver.engine.batcher import DynamicBatcher
from modelserver.engine.job import Job, Place
from modelserver.engine.scheduler import Action, Lost, Send
from modelserver.wire.frames import DESCRIBE


class ContinuousScheduler(DynamicBatcher):
    """Sends a worker its whole running set of up to `batch_size` jobs again and again, in the order of admission.

    A reply says which jobs go on; the others leave, waiting ones take their places at once, and the next step is sent.
    A set begins like any batch: its first job waits for company for `max_delay` seconds at most. A set holds jobs of
    one kind. A job of another kind at the head of the queue lets no other one pass: it waits for a worker whose set is
    over. Only a describe job does not wait so long: it gets a batch of its own between two steps, and never two in a
    row while a set waits for its next step.

    An idle worker comes first. If all are busy, the one that has finished a step fills its free places, but with no
    more than its share of what runs and waits; what it leaves to the others, it takes after its next step.
    """

    def __init__(
        self, *, batch_size: int, max_delay: float, capacity: int, max_bytes: int, tickets: bool = False
    ) -> None:
        """With `tickets` jobs are accepted only into free places: of idle workers, and of running sets."""
        super().__init__(
            batch_size=batch_size, max_delay=max_delay, capacity=capacity, max_bytes=max_bytes, tickets=tickets
        )
        self._continued: dict[int, int] = {}  # worker -> how many jobs of its batch were in the one before
        self._aside: dict[int, list[Job]] = {}  # worker -> its set, while a describe job has its turn
        self._modest: set[int] = set()  # workers that have left jobs to the others

    def reply(self, worker: int, batch: int, now: float, *, going_on: Collection[Job] = ()) -> Sequence[Action]:
        """A worker has answered a batch, and jobs in `going_on` not for good."""
        answered = self.running(worker, batch)
        if not answered:
            return ()
        del self._running[worker]
        self._continued.pop(worker, None)
        between = worker in self._aside  # two steps
        kept = self._aside.pop(worker, [])
        for job in answered:
            if job in going_on and not job.cancelled and job.kind != DESCRIBE:
                kept.append(job)
            else:
                job.place = Place.DONE
        if not kept and worker not in self._retired:
            self._idle[worker] = None
            return self._pump(now)
        return (self._next_step(worker, kept, describes=not between),) if kept else ()

    def gone(self, worker: int, now: float, *, unread: int = 0) -> Lost:
        """A worker is dead, and with it what it knew of its set; unless `unread` is 0, it had not begun the others."""
        batch, jobs = self._running.get(worker, (0, []))
        continued = self._continued.pop(worker, 0)
        lost = [*jobs[:continued], *self._aside.pop(worker, ())]
        for job in lost:
            job.place = Place.DONE
        if lost:
            self._running[worker] = batch, jobs[continued:]
        self._modest.discard(worker)
        failed, actions = super().gone(worker, now, unread=unread)
        return Lost([*lost, *failed], actions)

    def cancel(self, job: Job, now: float) -> Sequence[Action]:
        """The client of a job is gone: its worker is told, and finds it missing in the next step."""
        for jobs in self._aside.values():
            if job in jobs:
                job.cancel()
                job.place = Place.DONE
                jobs.remove(job)
                return ()
        return super().cancel(job, now)

    def _next_step(self, worker: int, kept: list[Job], *, describes: bool) -> Send:
        """The next batch of a worker that keeps these jobs: a step of its set, unless a describe job comes between."""
        following = None if worker in self._retired else self._peek()
        if following is not None and following.kind == DESCRIBE and describes:
            self._aside[worker] = kept
            return self._send(worker, [self._take()])
        continued = len(kept)
        if following is not None:
            self._admit(worker, kept)
        self._continued[worker] = continued
        return self._send(worker, kept)._replace(continued=continued)

    def _admit(self, worker: int, jobs: list[Job]) -> None:
        """Fill the free places of a set."""
        for _ in range(self._places_to_fill(worker, len(jobs))):
            following = self._peek()
            if following is None or following.kind != jobs[0].kind:
                return
            jobs.append(self._take())

    def _places_to_fill(self, worker: int, kept: int) -> int:
        free = self.batch_size - kept
        others = [len(jobs) for other, jobs in self._serving() if other != worker]
        if not others or worker in self._modest:
            self._modest.discard(worker)
            return free
        share = -(-(sum(others) + kept + self.waiting) // (len(others) + 1))
        fair = max(0, min(free, share - kept))
        if fair < min(free, self.waiting):
            self._modest.add(worker)
        return fair

    def _check_room(self, job: Job) -> None:
        """Whether another job may wait. Raises NotAccepted."""
        if not self.tickets or self.waiting >= self._free_places():
            super()._check_room(job)

    def _free_places(self) -> int:
        """Of sets that run or form."""
        sets = [jobs for _, jobs in self._serving()]
        if self._forming is not None:
            sets.append(self._forming.jobs)
        return sum(self.batch_size - len(jobs) for jobs in sets)

    def _serving(self) -> list[tuple[int, list[Job]]]:
        """Busy workers that may get more, with their sets."""
        return [
            (worker, self._aside.get(worker, jobs))
            for worker, (_, jobs) in self._running.items()
            if worker not in self._retired
        ]
