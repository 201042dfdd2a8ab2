"""Scheduling for stateful models: the requests of a sequence go to one worker, one after the other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Listed
from typing import Final

from modelserver.engine.job import Job, Place
from modelserver.engine.scheduler import Action, Closed, Lost, NotAccepted, Opened, Refuse, Send, Wake, Withdraw
from modelserver.engine.sequence_book import Sequence, SequenceBook
from modelserver.errors import Cause

_OVERTAKERS: Final = 4  # batches that may pass a job without sequence
# Why sequences end.
REMOVED: Final = "its worker was removed"
_DIED: Final = "its worker died"
_ENDED: Final = "its handler ended it"
_NOT_BEGUN: Final = "none of its requests was begun"


class WorkerRecord:
    """A loaded worker: it is free, collects a batch, or runs one."""

    __slots__ = ("batch", "due", "forming", "id", "ready", "retired", "running")

    def __init__(self, id: int) -> None:
        self.id = id
        # Its sequences that wait for a turn; the one that began to comes first.
        self.ready: OrderedDict[Sequence, None] = OrderedDict()
        self.forming: list[Job] = []
        self.due = 0.0  # of the forming batch
        self.running: list[Job] = []
        self.batch = 0  # id of the running batch
        self.retired = False


class SequenceScheduler:
    """Makes batches of requests of different sequences; the next request of a sequence waits for the answer to the one
    before.

    A sequence is bound to the worker that takes its first request, until it is closed. New ones go to the worker with
    the fewest that is free or collects a batch, provided it has less than its share of `maxNumSequence`. A batch is
    collected for at most `max_delay` seconds, and is complete when it is full, or when the next request in turn is of
    another kind: whose request has been ready for longer comes first, and sequences without requests hold up nobody.

    Jobs without sequence (describe) travel alone, when a worker is free and none of its sequences has a request; after
    a few batches it is their turn anyway.

    A worker that is retired still serves what was accepted for its sequences, but these are closed: what comes later
    opens new ones. The sequences of a dead worker are closed, and what waits in them is refused; only those that it had
    not begun on go to another one.
    """

    def __init__(
        self,
        *,
        book: SequenceBook,
        batch_size: int,
        max_delay: float,
        capacity: int,
        max_bytes: int,
        tickets: bool = False,
    ) -> None:
        """At most `capacity` jobs without sequence may wait, and bodies of `max_bytes` in all; with `tickets` nothing
        may that cannot be in a batch at once.
        """
        self.book = book
        self.batch_size = max(1, min(batch_size, book.most))  # a batch has one request of a sequence
        self.max_delay = max(0.0, max_delay) if self.batch_size > 1 else 0.0
        self.capacity = book.most * book.queue + capacity
        self.max_bytes = max_bytes
        self.tickets = tickets
        self.waiting = 0
        self._plain_capacity = capacity
        self._held = 0  # bytes of the bodies of waiting jobs
        self._workers: dict[int, WorkerRecord] = {}
        self._sequences: dict[Job, Sequence] = {}  # of all jobs that are not over
        self._unbound: OrderedDict[Sequence, None] = OrderedDict()  # no worker has taken their first request yet
        self._plain: OrderedDict[Job, None] = OrderedDict()  # jobs without sequence that wait
        self._passed = 0  # batches that went before the first of these
        self._turn = 0
        self._last_batch = 0
        self._now = 0.0
        self._asked: float | None = None  # the time of the last `Wake`
        self._owed: list[Action] = []  # told with the next answer

    @property
    def idle(self) -> bool:
        """Nothing waits, forms or runs."""
        return not self.waiting and not any(worker.running or worker.forming for worker in self._workers.values())

    def add(self, job: Job, now: float) -> Listed[Action]:
        """A new job. Raises NotAccepted."""
        self._advance(now)
        self._check_bytes(job)
        if job.sequence is None:
            self._check_plain_room()
            self._plain[job] = None
        else:
            self._enter(job, job.sequence.id, now)
        job.place = Place.QUEUED
        self.waiting += 1
        self._held += job.size
        return self._answer(self._pump(now))

    def ready(self, worker: int, now: float) -> Listed[Action]:
        """A worker has loaded and may be given work."""
        self._advance(now)
        self._workers[worker] = WorkerRecord(worker)
        return self._answer(self._pump(now))

    def running(self, worker: int, batch: int) -> list[Job]:
        """The jobs of a batch a worker has."""
        record = self._workers.get(worker)
        return record.running if record is not None and record.batch == batch else []

    def busy(self, worker: int) -> bool:
        """Whether a worker has a batch, or is retired and still owes some."""
        record = self._workers.get(worker)
        return record is not None and bool(record.running or (record.retired and (record.ready or record.forming)))

    def reply(self, worker: int, batch: int, now: float) -> Listed[Action]:
        """A worker has answered a batch for good."""
        jobs = self.running(worker, batch)
        if not jobs:
            return ()
        self._advance(now)
        self._workers[worker].running = []
        for job in jobs:
            self._settle(job, begun=True)
        return self._answer(self._pump(now))

    def end(self, ids: Iterable[str], now: float) -> Listed[Action]:
        """A handler says that these sequences are over: they make room at once, and what waits in them is refused."""
        self._advance(now)
        for id in ids:
            if (sequence := self.book.find(id)) is not None:
                self._end(sequence, _ENDED, f"sequence {id} is closed: {_ENDED}")
        return self._answer(self._pump(now))

    def retire(self, worker: int, now: float) -> Listed[Action]:
        """Give that worker nothing more than what was accepted for its sequences."""
        record = self._workers.get(worker)
        if record is None or record.retired:
            return ()
        self._advance(now)
        record.retired = True
        for job in reversed(list(record.forming)):
            sequence = self._sequences[job]
            if not sequence.begun:
                record.forming.remove(job)
                self._put_back(job)
                self._release(sequence)
        for sequence in self.book.of(worker):
            if sequence.begun:
                self._close(sequence, REMOVED)
        return self._answer(self._pump(now))

    def gone(self, worker: int, now: float, *, unread: int = 0) -> Lost:
        """A worker is dead; unless `unread` is 0, it had not started on its batch."""
        record = self._workers.pop(worker, None)
        if record is None:
            return Lost([], ())
        self._advance(now)
        unsent = [*(record.running if unread else ()), *record.forming]
        failed = [] if unread else record.running
        known = [self._sequences[job] for job in [*failed, *unsent] if job in self._sequences]
        sequences = dict.fromkeys([*known, *record.ready, *self.book.of(worker)])
        for job in failed:
            self._settle(job, begun=True)
        for job in reversed(unsent):
            self._put_back(job)
        for sequence in reversed(sequences):
            if sequence.begun or sequence.closed:
                self._end(sequence, _DIED, f"sequence {sequence.id} is closed: {_DIED}")
            else:
                self._release(sequence)
        return Lost(failed, self._answer(self._pump(now)))

    def cancel(self, job: Job, now: float) -> Listed[Action]:
        """The client of a job is gone."""
        job.cancel()
        if job.place is Place.DONE:
            return ()
        if job.place is Place.RUNNING:
            return [
                Withdraw(worker.id, worker.batch, job) for worker in self._workers.values() if job in worker.running
            ]
        self._advance(now)
        self._drop(job)
        return self._answer(self._pump(now))

    def tick(self, now: float) -> Listed[Action]:
        """A time asked for by `Wake` has come."""
        self._asked = None
        self._advance(now)
        actions: list[Action] = [
            self._send(worker) for worker in self._workers.values() if worker.forming and worker.due <= now
        ]
        return self._answer([*actions, *self._pump(now)])

    def clear(self) -> list[Job]:
        """Give up everything that waits or forms."""
        forming = [job for worker in self._workers.values() for job in worker.forming]
        jobs = [*forming, *self._plain, *(job for job in self._sequences if job.place is Place.QUEUED)]
        for job in jobs:
            self._drop(job)
        return jobs

    # What may come in.

    def _enter(self, job: Job, id: str, now: float) -> None:
        if self.tickets:
            self._check_ticket(id)
        opens = self.book.find(id) is None
        sequence = self.book.enter(id, job, now)
        self._sequences[job] = sequence
        if opens:
            self._owed.append(Opened(id))
        self._line_up(sequence)

    def _check_bytes(self, job: Job) -> None:
        if self.waiting and self._held + job.size > self.max_bytes:
            raise NotAccepted(Cause.QUEUE_FULL, f"{self._held} bytes of requests wait already (job_queue_bytes)")

    def _check_plain_room(self) -> None:
        if self.tickets and not any(self._is_free(worker) for worker in self._workers):
            raise NotAccepted(Cause.NO_TICKET, "no worker is idle (useJobTicket)")
        if len(self._plain) >= self._plain_capacity:
            raise NotAccepted(Cause.QUEUE_FULL, f"{len(self._plain)} requests wait already (jobQueueSize)")

    def _check_ticket(self, id: str) -> None:
        sequence = self.book.find(id)
        if sequence is None or sequence.worker is None:
            served = not self._unbound and self._taker() is not None
        else:
            served = sequence.quiet and self._is_free(sequence.worker)
        if not served:
            raise NotAccepted(Cause.NO_TICKET, "no worker for the sequence is idle (useJobTicket)")

    def _is_free(self, worker: int) -> bool:
        record = self._workers.get(worker)
        return record is not None and not (record.running or record.retired)

    # What becomes of sequences.

    def _advance(self, now: float) -> None:
        """Close the sequences whose time is over, and refuse what no worker has of them."""
        self._now = now
        for sequence, setting in self.book.overdue(now):
            self._end(sequence, setting, f"sequence {sequence.id} has expired ({setting})")

    def _end(self, sequence: Sequence, why: str, detail: str) -> None:
        """Close a sequence, and refuse its requests that have not been sent."""
        self._close(sequence, why)
        for job in [*self._collected(sequence), *sequence.waiting]:
            self._drop(job)
            self._owed.append(Refuse(job, Cause.SEQUENCE_CLOSED, detail))

    def _close(self, sequence: Sequence, why: str) -> None:
        if not sequence.closed:
            self.book.close(sequence)
            self._owed.append(Closed(sequence.id, why, lost=why in (REMOVED, _DIED)))

    def _release(self, sequence: Sequence) -> None:
        """Its worker has not begun it: another one may take it, before all that have waited less."""
        self._leave_line(sequence)
        self.book.unbind(sequence)
        if sequence.waiting:
            self._unbound[sequence] = None
            self._unbound.move_to_end(sequence, last=False)

    def _collected(self, sequence: Sequence) -> list[Job]:
        """Its requests in a batch that forms."""
        worker = None if sequence.worker is None else self._workers.get(sequence.worker)
        return [] if worker is None else [job for job in worker.forming if self._sequences[job] is sequence]

    def _line_up(self, sequence: Sequence) -> None:
        """It waits for its turn, if it has a request that may be next and a worker, or none yet."""
        if self._held_up(sequence) or not sequence.waiting:
            return
        if sequence.worker is None:
            line = self._unbound
        elif sequence.worker in self._workers:
            line = self._workers[sequence.worker].ready
        else:
            return
        if sequence not in line:
            self._turn += 1
            sequence.turn = self._turn
            line[sequence] = None

    def _held_up(self, sequence: Sequence) -> bool:
        """Whether its next request waits for an earlier one."""
        return bool(sequence.active)

    def _leave_line(self, sequence: Sequence) -> None:
        self._unbound.pop(sequence, None)
        if sequence.worker is not None and (worker := self._workers.get(sequence.worker)) is not None:
            worker.ready.pop(sequence, None)

    # What becomes of jobs.

    def _settle(self, job: Job, *, begun: bool) -> None:
        """A job that was in a batch is over."""
        job.place = Place.DONE
        sequence = self._sequences.pop(job, None)
        if sequence is None:
            return
        sequence.begun = sequence.begun or begun
        if self.book.settle(sequence, self._now):
            self._owed.append(Closed(sequence.id, _NOT_BEGUN))
        elif sequence.begun and sequence.worker in self._workers and self._workers[sequence.worker].retired:
            self._close(sequence, REMOVED)
        self._line_up(sequence)

    def _drop(self, job: Job) -> None:
        """A job that no worker has is over."""
        sequence = self._sequences.get(job)
        if job.place is Place.FORMING:
            for worker in self._workers.values():
                if job in worker.forming:
                    worker.forming.remove(job)
            self._settle(job, begun=False)
            return
        job.place = Place.DONE
        if sequence is None:
            if job not in self._plain:
                return
            del self._plain[job]
        else:
            del self._sequences[job]
            if self.book.drop(sequence, job, self._now):
                self._owed.append(Closed(sequence.id, _NOT_BEGUN))
            if not sequence.waiting:
                self._leave_line(sequence)
        self.waiting -= 1
        self._held -= job.size

    def _put_back(self, job: Job) -> None:
        """A job that no worker has begun waits again, before the others of its sequence; it was accepted, so limits do
        not count.
        """
        if job.cancelled:
            self._settle(job, begun=False)
            return
        job.place = Place.QUEUED
        self.waiting += 1
        self._held += job.size
        if (sequence := self._sequences.get(job)) is not None:
            self.book.put_back(sequence, [job])
        else:
            self._plain[job] = None
            self._plain.move_to_end(job, last=False)

    # Batches.

    def _pump(self, now: float) -> list[Action]:
        """Collect and send batches as long as there are requests in turn and free workers for them."""
        actions: list[Action] = []
        for worker in self._workers.values():
            if not worker.running:
                actions += self._fill(worker, now)
        while self._unbound and (taker := self._taker()) is not None:
            actions += self._fill(taker, now)
        return actions

    def _fill(self, worker: WorkerRecord, now: float) -> list[Action]:
        """A free worker takes what is next in turn; a batch that needs to wait no longer is sent."""
        takes_plain = bool(self._plain) and not worker.retired
        if takes_plain and not worker.forming and self._passed >= _OVERTAKERS:
            return [self._send_plain(worker)]
        while (sequence := self._next(worker)) is not None:
            if worker.forming and worker.forming[0].kind != next(iter(sequence.waiting)).kind:
                return [self._send(worker)]
            self._collect(worker, sequence, now)
            if len(worker.forming) >= self.batch_size:
                return [self._send(worker)]
        if worker.forming:
            return [self._send(worker)] if worker.retired or not self.max_delay else []
        return [self._send_plain(worker)] if takes_plain else []

    def _next(self, worker: WorkerRecord) -> Sequence | None:
        """Whose turn it is at a free worker: a sequence of its own, or a new one if the worker is to take it."""
        own = next(iter(worker.ready), None)
        new = next(iter(self._unbound), None)
        if new is None or (own is not None and own.turn < new.turn) or worker is not self._taker():
            return own
        return new

    def _taker(self) -> WorkerRecord | None:
        """The free worker that takes the next new sequence."""
        able = [worker for worker in self._workers.values() if not worker.retired]
        takers = [worker for worker in able if not worker.running and self.book.has_room(worker.id, len(able))]
        return min(takers, key=lambda worker: (self.book.count(worker.id), not worker.forming), default=None)

    def _collect(self, worker: WorkerRecord, sequence: Sequence, now: float) -> None:
        """The next request of a sequence joins the batch that a worker collects, which may be the first one."""
        self._leave_line(sequence)
        if sequence.worker is None:
            self.book.bind(sequence, worker.id)
        job = self.book.take(sequence)
        job.place = Place.FORMING
        self.waiting -= 1
        self._held -= job.size
        if not worker.forming:
            worker.due = now + self.max_delay
        worker.forming.append(job)

    def _send(self, worker: WorkerRecord) -> Send:
        jobs, worker.forming = worker.forming, []
        if self._plain:
            self._passed += 1
        return self._run(worker, jobs)

    def _send_plain(self, worker: WorkerRecord) -> Send:
        job = next(iter(self._plain))
        del self._plain[job]
        self._passed = 0
        self.waiting -= 1
        self._held -= job.size
        return self._run(worker, [job])

    def _run(self, worker: WorkerRecord, jobs: list[Job]) -> Send:
        self._last_batch += 1
        worker.batch, worker.running = self._last_batch, jobs
        for job in jobs:
            job.place = Place.RUNNING
        return Send(worker.id, worker.batch, jobs)

    def _answer(self, actions: list[Action]) -> list[Action]:
        """What to do, with what is owed, and when to ask again: asked anew only for an earlier time."""
        actions += self._owed
        self._owed = []
        times = [worker.due for worker in self._workers.values() if worker.forming]
        if (due := self.book.due) is not None:
            times.append(due)
        if times and (self._asked is None or min(times) < self._asked):
            self._asked = min(times)
            actions.append(Wake(self._asked))
        return actions
