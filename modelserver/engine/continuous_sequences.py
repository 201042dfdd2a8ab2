"""Continuous batching for stateful models: a request may join the steps of an earlier one of its own sequence."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Sequence as Listed
from itertools import islice
from typing import Final

from modelserver.engine.job import Job
from modelserver.engine.scheduler import Action, Lost, NotAccepted, Send
from modelserver.engine.sequence_book import Sequence, SequenceBook
from modelserver.engine.sequence_scheduler import REMOVED, SequenceScheduler
from modelserver.engine.sequence_scheduler import WorkerRecord as Record
from modelserver.errors import Cause
from modelserver.wire.frames import DESCRIBE

_PLACES: Final = 2  # in a set, for each place in a batch


class ContinuousSequenceScheduler(SequenceScheduler):
    """Sequences are opened, bound and closed as ever; what a worker has taken is a set that goes on in steps.

    The next request of a sequence joins after the step that the one before has joined with, however long that one goes
    on: a step has one new request of a sequence at most. A set holds `batch_size` requests, and as many again for
    further ones of sequences that are in it: who is to end a stream need not wait for the end of another one.

    A set begins like any batch of sequences, and holds jobs of one kind. A newcomer of another kind lets no other
    newcomer pass; it waits for the end of the set. Jobs without sequence (describe) get a batch of their own between
    two steps, and never two in a row while a set waits for its next step.
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
        """With `tickets` jobs are accepted only into free places: of idle workers, and of running sets."""
        super().__init__(
            book=book,
            batch_size=batch_size,
            max_delay=max_delay,
            capacity=capacity,
            max_bytes=max_bytes,
            tickets=tickets,
        )
        self._places = _PLACES * self.batch_size
        self._continued: dict[int, int] = {}  # worker -> how many jobs of its batch were in the one before
        self._aside: dict[int, list[Job]] = {}  # worker -> its set, while a describe job has its turn

    def reply(self, worker: int, batch: int, now: float, *, going_on: Collection[Job] = ()) -> Listed[Action]:
        """A worker has answered a batch, and jobs in `going_on` not for good."""
        jobs = self.running(worker, batch)
        if not jobs:
            return ()
        self._advance(now)
        record = self._workers[worker]
        record.running = []
        self._continued.pop(worker, None)
        between = worker in self._aside  # two steps
        kept = self._aside.pop(worker, [])
        for job in jobs:
            if job in going_on and not job.cancelled and job.kind != DESCRIBE:
                kept.append(job)
                self._begin(record, self._sequences[job])
            else:
                self._settle(job, begun=True)
        actions: list[Action] = [self._next_step(record, kept, now, describes=not between)] if kept else []
        return self._answer([*actions, *self._pump(now)])

    def gone(self, worker: int, now: float, *, unread: int = 0) -> Lost:
        """A worker is dead, and with it what it knew of its set; unless `unread` is 0, it had not begun the others."""
        record = self._workers.get(worker)
        if record is None:
            return Lost([], ())
        self._advance(now)
        continued = self._continued.pop(worker, 0)
        lost = [*record.running[:continued], *self._aside.pop(worker, ())]
        record.running = record.running[continued:]
        for job in lost:
            self._settle(job, begun=True)
        failed, actions = super().gone(worker, now, unread=unread)
        return Lost([*lost, *failed], actions)

    def cancel(self, job: Job, now: float) -> Listed[Action]:
        """The client of a job is gone: its worker is told, and finds it missing in the next step."""
        for jobs in self._aside.values():
            if job in jobs:
                job.cancel()
                jobs.remove(job)
                self._advance(now)
                self._settle(job, begun=True)
                return self._answer(self._pump(now))
        return super().cancel(job, now)

    def _begin(self, record: Record, sequence: Sequence) -> None:
        """Its worker has answered the first step of one of its requests."""
        sequence.begun = True
        if record.retired:
            self._close(sequence, REMOVED)

    def _next_step(self, record: Record, kept: list[Job], now: float, *, describes: bool) -> Send:
        """The next batch of a worker that keeps these jobs: a step of its set, unless a describe job comes between."""
        if self._plain and describes and not record.retired:
            self._aside[record.id] = kept
            return self._send_plain(record)
        for sequence in self._joining(record, kept):
            self._collect(record, sequence, now)
        fresh, record.forming = record.forming, []
        self._continued[record.id] = len(kept)
        return self._run(record, [*kept, *fresh])._replace(continued=len(kept))

    def _joining(self, record: Record, kept: list[Job]) -> Iterator[Sequence]:
        """Whose next request joins a set, in turn; each one has been taken before the next one is asked for."""
        inside = {self._sequences[job] for job in kept}
        barred = False
        for sequence in self._candidates(record, inside):
            size = len(kept) + len(record.forming)
            if size >= self._places:
                return
            if sequence not in inside:
                barred = barred or size >= self.batch_size
                if barred or (sequence.worker is None and record is not self._taker()):
                    continue
            if next(iter(sequence.waiting)).kind == kept[0].kind:
                yield sequence
            else:
                barred = True

    def _candidates(self, record: Record, inside: set[Sequence]) -> list[Sequence]:
        """Who may be among those that join, in turn: the lines are long, what a step takes is not."""
        within = [sequence for sequence in inside if sequence in record.ready]
        first = [*islice(record.ready, len(within) + self.batch_size), *islice(self._unbound, self.batch_size)]
        return sorted({*within, *first}, key=lambda sequence: sequence.turn)

    def _run(self, worker: Record, jobs: list[Job]) -> Send:
        send = super()._run(worker, jobs)
        for job in jobs:
            if job in self._sequences:
                self._line_up(self._sequences[job])
        return send

    def _held_up(self, sequence: Sequence) -> bool:
        """Until the batch is sent that its last request is collected in."""
        return bool(self._collected(sequence))

    def _check_ticket(self, id: str) -> None:
        sequence = self.book.find(id)
        if sequence is None or sequence.worker is None:
            takers = (record for record in self._workers.values() if not record.retired)
            able = [record for record in takers if self.book.has_room(record.id, len(self._workers))]
            served = not self._unbound and any(self._size(record) < self.batch_size for record in able)
        else:
            record = self._workers.get(sequence.worker)
            served = record is not None and not sequence.waiting and self._size(record) < self._places
        if not served:
            raise NotAccepted(Cause.NO_TICKET, "the set of no worker for the sequence has a free place (useJobTicket)")

    def _size(self, record: Record) -> int:
        """How large a worker's set is."""
        return len(self._aside.get(record.id, record.running)) + len(record.forming)
