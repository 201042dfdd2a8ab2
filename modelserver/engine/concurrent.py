"""Scheduling for asynchronous workers: nothing waits for an answer, so a worker holds any number of batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from modelserver.engine.job import Job, Place
from modelserver.engine.scheduler import Action, Lost, NotAccepted, Send, Wake, Withdraw
from modelserver.errors import Cause
from modelserver.wire.frames import DESCRIBE


class ConcurrentScheduler:
    """Sends each job as soon as it comes to the worker that has the fewest unanswered batches.

    With a batch size above 1, jobs of one kind are collected for at most `max_delay` seconds from the first one on; a
    describe job travels alone. Jobs wait only while no worker is loaded: how much runs at once is the handler's
    business, and what is bounded here is the memory of bodies.
    """

    def __init__(
        self, *, batch_size: int, max_delay: float, capacity: int, max_bytes: int, tickets: bool = False
    ) -> None:
        """At most `capacity` jobs may wait, with `tickets` none; bodies of unanswered jobs have `max_bytes` at most."""
        self.batch_size = max(1, batch_size)
        self.max_delay = max(0.0, max_delay) if self.batch_size > 1 else 0.0
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.tickets = tickets
        self.waiting = 0
        self._held = 0  # bytes of the bodies of unanswered jobs
        self._queue: deque[Job] = deque()  # may hold cancelled jobs; `waiting` does not count them
        self._forming: list[Job] = []
        self._due = 0.0  # of the forming batch
        self._ready: dict[int, None] = {}  # the one that was sent nothing for longest comes first
        self._unanswered: dict[int, dict[int, list[Job]]] = {}  # worker -> batch id -> jobs; oldest batch first
        self._sent: dict[Job, tuple[int, int]] = {}  # unanswered jobs -> worker, batch id
        self._last_batch = 0

    @property
    def idle(self) -> bool:
        """Nothing waits, forms or runs."""
        return not (self.waiting or self._forming or any(self._unanswered.values()))

    def add(self, job: Job, now: float) -> Sequence[Action]:
        """A new job. Raises NotAccepted."""
        self._check_room(job)
        self._held += job.size
        if self._ready:
            return self._pass_on(job, now)
        job.place = Place.QUEUED
        self._queue.append(job)
        self.waiting += 1
        return ()

    def ready(self, worker: int, now: float) -> Sequence[Action]:
        """A worker has loaded and may be given work: all that waits."""
        self._ready[worker] = None
        self._unanswered[worker] = {}
        return self._pump(now)

    def running(self, worker: int, batch: int) -> list[Job]:
        """The jobs of a batch a worker has."""
        batches = self._unanswered.get(worker)
        return [] if batches is None else batches.get(batch, [])

    def busy(self, worker: int) -> bool:
        """Whether a worker has a batch."""
        return bool(self._unanswered.get(worker))

    def reply(self, worker: int, batch: int, now: float) -> Sequence[Action]:
        """A worker has answered a batch for good, or is not waited for any more."""
        self._finish(self._unanswered.get(worker, {}).pop(batch, ()))
        return ()

    def retire(self, worker: int, now: float) -> Sequence[Action]:
        """Give that worker nothing more."""
        self._ready.pop(worker, None)
        self._keep_forming()
        return ()

    def gone(self, worker: int, now: float, *, unread: int = 0) -> Lost:
        """A worker is dead; the last `unread` batches it had not started on."""
        self._ready.pop(worker, None)
        batches = list(self._unanswered.pop(worker, {}).values())
        begun = max(0, len(batches) - unread)
        failed = [job for jobs in batches[:begun] for job in jobs]
        self._finish(failed)
        self._keep_forming()
        self._put_back([job for jobs in batches[begun:] for job in jobs])
        return Lost(failed, self._pump(now) if self._ready else ())

    def cancel(self, job: Job, now: float) -> Sequence[Action]:
        """The client of a job is gone."""
        job.cancel()
        if job.place is Place.RUNNING and job in self._sent:
            return [Withdraw(*self._sent[job], job)]
        if job.place is Place.QUEUED:
            self.waiting -= 1
            self._held -= job.size
            self._sweep()
        elif job.place is Place.FORMING:
            self._forming.remove(job)
            self._held -= job.size
        job.place = Place.DONE
        return ()

    def tick(self, now: float) -> Sequence[Action]:
        """A time asked for by `Wake` has come."""
        if not self._forming:
            return ()
        return [Wake(self._due)] if self._due > now else [self._send_forming()]

    def clear(self) -> list[Job]:
        """Give up everything that waits or forms."""
        jobs = [*self._forming, *(job for job in self._queue if not job.cancelled)]
        self._forming = []
        self._queue.clear()
        self.waiting = 0
        self._finish(jobs)
        return jobs

    def _check_room(self, job: Job) -> None:
        """Whether another job may come in. Raises NotAccepted."""
        if not self._ready and self.tickets:
            raise NotAccepted(Cause.NO_TICKET, "no worker is ready (useJobTicket)")
        if not self._ready and self.waiting >= self.capacity:
            raise NotAccepted(Cause.QUEUE_FULL, f"{self.waiting} requests wait already (jobQueueSize)")
        if self._held and self._held + job.size > self.max_bytes:
            raise NotAccepted(Cause.QUEUE_FULL, f"{self._held} bytes of requests are unanswered (job_queue_bytes)")

    def _pump(self, now: float) -> list[Action]:
        """Send what has waited."""
        jobs = [job for job in self._queue if not job.cancelled]
        self._queue.clear()
        self.waiting = 0
        return [action for job in jobs for action in self._pass_on(job, now)]

    def _pass_on(self, job: Job, now: float) -> Sequence[Action]:
        """A worker is ready: the job leaves, alone or with those that it completes or ends a batch for."""
        if self.batch_size == 1:
            return (self._send([job]),)
        actions: list[Action] = []
        if self._forming and self._forming[0].kind != job.kind:
            actions.append(self._send_forming())
        if job.kind == DESCRIBE:
            return [*actions, self._send([job])]
        job.place = Place.FORMING
        self._forming.append(job)
        if len(self._forming) == self.batch_size or not self.max_delay:
            actions.append(self._send_forming())
        elif len(self._forming) == 1:
            self._due = now + self.max_delay
            actions.append(Wake(self._due))
        return actions

    def _send_forming(self) -> Send:
        jobs, self._forming = self._forming, []
        return self._send(jobs)

    def _send(self, jobs: list[Job]) -> Send:
        worker = min(self._ready, key=lambda worker: len(self._unanswered[worker]))
        self._ready[worker] = self._ready.pop(worker)  # behind the others
        self._last_batch += 1
        self._unanswered[worker][self._last_batch] = jobs
        for job in jobs:
            job.place = Place.RUNNING
            self._sent[job] = (worker, self._last_batch)
        return Send(worker, self._last_batch, jobs)

    def _finish(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.place = Place.DONE
            self._held -= job.size
            self._sent.pop(job, None)

    def _keep_forming(self) -> None:
        """Without a worker to send it to, the forming batch waits with the rest."""
        if not self._ready:
            jobs, self._forming = self._forming, []
            self._put_back(jobs)

    def _put_back(self, jobs: list[Job]) -> None:
        """To the head of the queue, in their old order; they were accepted, so the capacity does not count."""
        self._finish([job for job in jobs if job.cancelled])
        kept = [job for job in jobs if not job.cancelled]
        for job in kept:
            job.place = Place.QUEUED
            self._sent.pop(job, None)
        self._queue.extendleft(reversed(kept))
        self.waiting += len(kept)

    def _sweep(self) -> None:
        """Drop cancelled jobs once they outnumber the places, so that vanishing clients cannot grow the queue."""
        if len(self._queue) - self.waiting > self.capacity:
            self._queue = deque(job for job in self._queue if not job.cancelled)
