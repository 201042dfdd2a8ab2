"""The one interface of all batching kinds: a pure state machine that is told what happens and answers what to do.

Times are seconds of one monotonic clock, passed in. Workers are known by their id. Asynchronous workers,
continuous batching and sequences have other classes behind this interface: no other engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from modelserver.engine.job import Job
from modelserver.errors import Cause


class NotAccepted(Exception):
    """No room for another waiting job; `detail` is one line an operator can act on."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause
        self.detail = detail


class Send(NamedTuple):
    """Give these jobs to that worker, as one batch of one kind."""

    worker: int
    batch: int  # id, unique within the scheduler
    jobs: list[Job]
    continued: int = 0  # so many at the head go on since the last batch of that worker (continuous batching)


class Wake(NamedTuple):
    """Call `tick` at that time."""

    at: float


class Withdraw(NamedTuple):
    """Tell that worker that the client of a job it is running is gone."""

    worker: int
    batch: int
    job: Job


class Refuse(NamedTuple):
    """Answer a job that was waiting: the sequence it belongs to is closed."""

    job: Job
    cause: Cause
    detail: str  # one line an operator can act on


class Opened(NamedTuple):
    """A sequence has begun: nothing to do."""

    sequence: str  # id


class Closed(NamedTuple):
    """A sequence is over: nothing to do."""

    sequence: str  # id
    why: str
    lost: bool = False  # with what its worker knew, though neither its time nor its handler has ended it


Action = Send | Wake | Withdraw | Refuse | Opened | Closed


class Lost(NamedTuple):
    """What a dead worker leaves: jobs it was running, and what to do next (jobs it had not started are waiting
    again).
    """

    failed: list[Job]
    actions: Sequence[Action]


class Scheduler(Protocol):
    """Decides which jobs go to which worker, and when."""

    @property
    def waiting(self) -> int:
        """Jobs that no batch has taken yet."""

    @property
    def capacity(self) -> int:
        """How many jobs may wait."""

    @property
    def idle(self) -> bool:
        """Nothing waits, forms or runs."""

    def add(self, job: Job, now: float) -> Sequence[Action]:
        """A new job. Raises NotAccepted."""

    def ready(self, worker: int, now: float) -> Sequence[Action]:
        """A worker has loaded and may be given work."""

    def running(self, worker: int, batch: int) -> list[Job]:
        """The jobs of a batch a worker has, in the order they were sent; empty if it has no such batch."""

    def reply(self, worker: int, batch: int, now: float) -> Sequence[Action]:
        """A worker has answered a batch for good."""

    def busy(self, worker: int) -> bool:
        """Whether a worker has a batch."""

    def retire(self, worker: int, now: float) -> Sequence[Action]:
        """Give that worker nothing more; what it runs, it finishes."""

    def gone(self, worker: int, now: float, *, unread: int = 0) -> Lost:
        """A worker is dead; the last `unread` batches it had not started on."""

    def cancel(self, job: Job, now: float) -> Sequence[Action]:
        """The client of a job is gone."""

    def tick(self, now: float) -> Sequence[Action]:
        """A time asked for by `Wake` has come."""

    def clear(self) -> list[Job]:
        """Give up everything that waits or forms, and return it."""
