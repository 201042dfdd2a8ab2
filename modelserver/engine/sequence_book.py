"""The open sequences of a stateful version: who may join, which worker holds the state of each, when each ends.

Pure. Times are seconds of one monotonic clock, passed in. What batches are made of is a scheduler's business; it tells
the book what becomes of requests:

    enter    a request comes: it joins its sequence, or opens one, and waits there
    bind     a worker takes a request of a sequence that has none yet; from then on the sequence is that worker's
    take     a waiting request becomes active: it is in a batch that forms or runs
    put_back an active request waits again, before the others: nobody has begun it
    settle   an active request is over
    drop     a waiting request is over without having been taken: its client is gone
    close    a sequence ends, because its handler, its worker or its age says so
    overdue  what is to be closed by now; `due` says when to ask

How many requests of a sequence are active at once is up to the scheduler, too. A closed sequence is forgotten: the next
request with its id opens another one, which may be bound to another worker. What still waits in it stays with it, and
the scheduler serves or refuses that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from modelserver.engine.job import Job
from modelserver.engine.scheduler import NotAccepted
from modelserver.errors import Cause


class Sequence:
    """Requests that share a state, which lives in one worker process."""

    __slots__ = ("active", "begun", "closed", "id", "opened", "turn", "waiting", "worker")

    def __init__(self, id: str, opened: float) -> None:
        self.id = id
        self.opened = opened  # seconds
        self.worker: int | None = None  # None: no worker has taken a request yet
        self.begun = False  # its worker has started on a request, and may hold state
        self.closed = False
        self.active = 0  # requests in batches that form or run
        self.waiting: dict[Job, None] = {}  # oldest first
        self.turn = 0  # for the scheduler: the smaller one comes first

    @property
    def quiet(self) -> bool:
        """Nothing waits, forms or runs."""
        return not (self.waiting or self.active)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Sequence {self.id} {state}, worker {self.worker}, {self.active} active, {len(self.waiting)} waiting>"


class SequenceBook:
    """Opens, finds, binds and closes sequences; counts their requests, and measures their time."""

    def __init__(self, *, most: int, queue: int, max_idle: float = 0.0, max_life: float = 0.0) -> None:
        """At most `most` sequences are open, in each of which `queue` requests wait at most.

        One without active and waiting requests ends `max_idle` seconds after its last request was over, each one ends
        `max_life` seconds after its first request came; 0: never.
        """
        self.most = max(1, most)
        self.queue = max(1, queue)
        self.max_idle = max(0.0, max_idle)
        self.max_life = max(0.0, max_life)
        # Ordered ones: in a plain dict, to find the first of thousands means to pass all that were before it.
        self._open: OrderedDict[str, Sequence] = OrderedDict()  # oldest first
        self._idle: OrderedDict[Sequence, float] = OrderedDict()  # quiet ones, since when (seconds); longest first
        self._bound: dict[int, dict[Sequence, None]] = {}  # worker -> its open sequences

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def find(self, id: str) -> Sequence | None:
        """The open sequence of this id."""
        return self._open.get(id)

    def of(self, worker: int) -> list[Sequence]:
        """The open sequences that are bound to a worker."""
        return list(self._bound.get(worker, ()))

    def count(self, worker: int) -> int:
        """How many open sequences are bound to a worker."""
        return len(self._bound.get(worker, ()))

    def has_room(self, worker: int, workers: int) -> bool:
        """Whether a worker, one of so many, holds less than its share of all sequences there may be."""
        return self.count(worker) * workers < self.most

    def enter(self, id: str, job: Job, now: float) -> Sequence:
        """A request comes, and waits in its sequence, which it opens if need be. Raises NotAccepted; nothing has
        changed then.
        """
        sequence = self._open.get(id)
        if sequence is None:
            if len(self._open) >= self.most:
                raise NotAccepted(Cause.SEQUENCES_FULL, f"{len(self._open)} sequences are open (maxNumSequence)")
            sequence = self._open[id] = Sequence(id, now)
        elif len(sequence.waiting) >= self.queue:
            text = f"{len(sequence.waiting)} requests of sequence {id} wait already (maxSequenceJobQueueSize)"
            raise NotAccepted(Cause.QUEUE_FULL, text)
        self._idle.pop(sequence, None)
        sequence.waiting[job] = None
        return sequence

    def bind(self, sequence: Sequence, worker: int) -> None:
        """From now on it is this worker's."""
        sequence.worker = worker
        if not sequence.closed:
            self._bound.setdefault(worker, {})[sequence] = None

    def unbind(self, sequence: Sequence) -> None:
        """Its worker has not begun it, and will not."""
        self._release(sequence)
        sequence.worker = None

    def take(self, sequence: Sequence) -> Job:
        """The request that has waited for longest is active from now on."""
        job = next(iter(sequence.waiting))
        del sequence.waiting[job]
        sequence.active += 1
        return job

    def put_back(self, sequence: Sequence, jobs: Iterable[Job]) -> None:
        """Active requests wait again, in this order and before the others."""
        first = dict.fromkeys(jobs)
        sequence.active -= len(first)
        sequence.waiting = {**first, **sequence.waiting}

    def settle(self, sequence: Sequence, now: float) -> bool:
        """An active request is over: answered, failed, or given up by its client before it was sent. Returns whether
        that has ended the sequence.
        """
        sequence.active -= 1
        return self._rest(sequence, now)

    def drop(self, sequence: Sequence, job: Job, now: float) -> bool:
        """A waiting request is over. Returns whether that has ended the sequence."""
        del sequence.waiting[job]
        return self._rest(sequence, now)

    def close(self, sequence: Sequence) -> None:
        """It ends: its place is free, and its id opens another one. What waits in it is left as it is."""
        if sequence.closed:
            return
        sequence.closed = True
        del self._open[sequence.id]
        self._idle.pop(sequence, None)
        self._release(sequence)

    def overdue(self, now: float) -> list[tuple[Sequence, str]]:
        """Those whose time is over, each with the setting that says so; whoever asks closes them."""
        ended: dict[Sequence, str] = {}
        if self.max_life:
            for sequence in self._open.values():
                if sequence.opened + self.max_life > now:
                    break
                ended[sequence] = "sequenceTimeoutMSec"
        if self.max_idle:
            for sequence, since in self._idle.items():
                if since + self.max_idle > now:
                    break
                ended.setdefault(sequence, "sequenceMaxIdleMSec")
        return list(ended.items())

    @property
    def due(self) -> float | None:
        """When the next sequence will be overdue, as things are; None: never."""
        times = []
        if self.max_life and self._open:
            times.append(next(iter(self._open.values())).opened + self.max_life)
        if self.max_idle and self._idle:
            times.append(next(iter(self._idle.values())) + self.max_idle)
        return min(times, default=None)

    def _release(self, sequence: Sequence) -> None:
        """Its worker has one less; which one that was is still known."""
        if sequence.worker is None:
            return
        bound = self._bound.get(sequence.worker, {})
        bound.pop(sequence, None)
        if not bound:
            self._bound.pop(sequence.worker, None)

    def _rest(self, sequence: Sequence, now: float) -> bool:
        """Its idle time begins if nothing is left; no worker knows one that was never begun, so that one is over."""
        if sequence.closed or not sequence.quiet:
            return False
        if sequence.begun:
            self._idle[sequence] = now
            return False
        self.close(sequence)
        return True
