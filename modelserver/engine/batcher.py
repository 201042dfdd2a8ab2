"""Dynamic batching: first come, first served, one forming batch per model version, any number of workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from modelserver.engine.job import Job, Place
from modelserver.engine.scheduler import Action, Lost, NotAccepted, Send, Wake, Withdraw
from modelserver.errors import Cause
from modelserver.wire.frames import DESCRIBE


class _Forming:
    """A batch that an idle worker is reserved for and that waits for company until `due`."""

    __slots__ = ("due", "jobs", "worker")

    def __init__(self, worker: int, first: Job, due: float) -> None:
        self.worker = worker
        self.jobs = [first]
        self.due = due


class DynamicBatcher:
    """Fills a batch of up to `batch_size` jobs for at most `max_delay` seconds from the moment the first one is taken.

    Free workers do not split a forming batch: only one is collected at a time, and it goes to the worker that began
    it. A delay of 0 takes whatever waits and sends it at once. Jobs of another kind end a batch; a describe job
    travels alone.
    """

    def __init__(
        self, *, batch_size: int, max_delay: float, capacity: int, max_bytes: int, tickets: bool = False
    ) -> None:
        """At most `capacity` jobs with bodies of `max_bytes` together may wait; with `tickets` none, unless a worker is
        idle.
        """
        self.batch_size = max(1, batch_size)
        self.max_delay = max(0.0, max_delay) if self.batch_size > 1 else 0.0
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.tickets = tickets
        self.waiting = 0
        self._held = 0  # bytes of the bodies of waiting jobs
        self._queue: deque[Job] = deque()  # may hold cancelled jobs; `waiting` does not count them
        self._idle: dict[int, None] = {}  # insertion order: the longest idle worker first
        self._running: dict[int, tuple[int, list[Job]]] = {}  # worker -> batch id, jobs
        self._retired: set[int] = set()
        self._forming: _Forming | None = None
        self._last_batch = 0

    @property
    def idle(self) -> bool:
        """Nothing waits, forms or runs."""
        return not (self.waiting or self._running or self._forming)

    def add(self, job: Job, now: float) -> Sequence[Action]:
        """A new job. Raises NotAccepted."""
        if not self._idle:
            self._check_room(job)
        elif self.batch_size == 1:  # nothing waits while a worker is idle
            return (self._send(self._take_worker(), [job]),)
        job.place = Place.QUEUED
        self._queue.append(job)
        self.waiting += 1
        self._held += job.size
        if self._forming is None and not self._idle:
            return ()
        return self._pump(now)

    def ready(self, worker: int, now: float) -> Sequence[Action]:
        """A worker has loaded and may be given work."""
        self._retired.discard(worker)
        self._idle[worker] = None
        return self._pump(now)

    def running(self, worker: int, batch: int) -> list[Job]:
        """The jobs of a batch a worker has."""
        current = self._running.get(worker)
        return current[1] if current is not None and current[0] == batch else []

    def busy(self, worker: int) -> bool:
        """Whether a worker has a batch."""
        return worker in self._running

    def reply(self, worker: int, batch: int, now: float) -> Sequence[Action]:
        """A worker has answered a batch for good."""
        for job in self.running(worker, batch):
            job.place = Place.DONE
        if self._running.pop(worker, None) is None or worker in self._retired:
            return ()
        if not self.waiting:
            self._idle[worker] = None
            return ()
        if self.batch_size == 1:  # no other worker is idle while jobs wait
            return (self._send(worker, [self._take()]),)
        self._idle[worker] = None
        return self._pump(now)

    def retire(self, worker: int, now: float) -> Sequence[Action]:
        """Give that worker nothing more."""
        self._retired.add(worker)
        self._idle.pop(worker, None)
        return self._disband(worker, now)

    def gone(self, worker: int, now: float, *, unread: int = 0) -> Lost:
        """A worker is dead; unless `unread` is 0, it had not started on its batch."""
        _, jobs = self._running.pop(worker, (0, []))
        self._idle.pop(worker, None)
        self._retired.discard(worker)
        if unread:
            self._put_back(jobs)
            jobs = []
        for job in jobs:
            job.place = Place.DONE
        return Lost(jobs, [*self._disband(worker, now), *self._pump(now)])

    def cancel(self, job: Job, now: float) -> Sequence[Action]:
        """The client of a job is gone."""
        job.cancel()
        if job.place is Place.QUEUED:
            job.place = Place.DONE
            self.waiting -= 1
            self._held -= job.size
            self._sweep()
        elif job.place is Place.FORMING:
            job.place = Place.DONE
            return self._leave_forming(job, now)
        elif job.place is Place.RUNNING:
            for worker, (batch, jobs) in self._running.items():
                if job in jobs:
                    return [Withdraw(worker, batch, job)]
        return ()

    def tick(self, now: float) -> Sequence[Action]:
        """A time asked for by `Wake` has come."""
        forming = self._forming
        if forming is None:
            return ()
        if forming.due > now:
            return [Wake(forming.due)]
        self._forming = None
        return [self._send(forming.worker, forming.jobs), *self._pump(now)]

    def clear(self) -> list[Job]:
        """Give up everything that waits or forms."""
        jobs = [job for job in self._queue if not job.cancelled]
        if self._forming is not None:
            jobs[:0] = self._forming.jobs
            self._idle[self._forming.worker] = None
            self._forming = None
        self._queue.clear()
        self.waiting = self._held = 0
        for job in jobs:
            job.place = Place.DONE
        return jobs

    def _check_room(self, job: Job) -> None:
        """Whether another job may wait. Raises NotAccepted."""
        if self.tickets:
            raise NotAccepted(Cause.NO_TICKET, "no worker is idle (useJobTicket)")
        if self.waiting >= self.capacity:
            raise NotAccepted(Cause.QUEUE_FULL, f"{self.waiting} requests wait already (jobQueueSize)")
        if self.waiting and self._held + job.size > self.max_bytes:
            raise NotAccepted(Cause.QUEUE_FULL, f"{self._held} bytes of requests wait already (job_queue_bytes)")

    def _pump(self, now: float) -> list[Action]:
        """Form and send batches as long as there are jobs and idle workers."""
        actions: list[Action] = []
        while self.waiting:
            forming = self._forming
            if forming is None:
                if not self._idle:
                    break
                worker = self._take_worker()
                first = self._take()
                if self.batch_size == 1 or first.kind == DESCRIBE:
                    actions.append(self._send(worker, [first]))
                    continue
                first.place = Place.FORMING
                forming = self._forming = _Forming(worker, first, now + self.max_delay)
                actions.append(Wake(forming.due))
            if not self._top_up(forming) and self.max_delay:
                break
            self._forming = None
            if actions and isinstance(actions[-1], Wake):
                actions.pop()
            actions.append(self._send(forming.worker, forming.jobs))
        return actions

    def _top_up(self, forming: _Forming) -> bool:
        """Take waiting jobs of the same kind; True when the batch is complete: full, or ended by a job of another
        kind.
        """
        while len(forming.jobs) < self.batch_size:
            following = self._peek()
            if following is None:
                return False
            if following.kind != forming.jobs[0].kind:
                return True
            job = self._take()
            job.place = Place.FORMING
            forming.jobs.append(job)
        return True

    def _send(self, worker: int, jobs: list[Job]) -> Send:
        self._last_batch += 1
        for job in jobs:
            job.place = Place.RUNNING
        self._running[worker] = (self._last_batch, jobs)
        return Send(worker, self._last_batch, jobs)

    def _take_worker(self) -> int:
        """The one that has been idle for longest."""
        worker = next(iter(self._idle))
        del self._idle[worker]
        return worker

    def _take(self) -> Job:
        queue = self._queue
        while (job := queue.popleft()).cancelled:
            pass
        self.waiting -= 1
        self._held -= job.size
        return job

    def _peek(self) -> Job | None:
        queue = self._queue
        while queue:
            if not queue[0].cancelled:
                return queue[0]
            queue.popleft()
        return None

    def _put_back(self, jobs: list[Job]) -> None:
        """To the head of the queue, in their old order; they were accepted, so the capacity does not count."""
        kept = [job for job in jobs if not job.cancelled]
        for job in kept:
            job.place = Place.QUEUED
            self._held += job.size
        self._queue.extendleft(reversed(kept))
        self.waiting += len(kept)

    def _disband(self, worker: int, now: float) -> Sequence[Action]:
        """If that worker was collecting, its jobs wait again, for another one."""
        forming = self._forming
        if forming is None or forming.worker != worker:
            return ()
        self._forming = None
        self._put_back(forming.jobs)
        return self._pump(now)

    def _leave_forming(self, job: Job, now: float) -> Sequence[Action]:
        forming = self._forming
        if forming is not None and job in forming.jobs:
            forming.jobs.remove(job)
            if not forming.jobs:
                self._forming = None
                self._idle[forming.worker] = None
                return self._pump(now)
        return ()

    def _sweep(self) -> None:
        """Drop cancelled jobs once they outnumber the places, so that vanishing clients cannot grow the queue."""
        if len(self._queue) - self.waiting > self.capacity:
            self._queue = deque(job for job in self._queue if not job.cancelled)
