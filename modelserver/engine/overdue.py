"""Workers that owe replies: one timer per model version, set to the earliest one that is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Debtor(Protocol):
    """Whoever owes a reply."""

    reply_due: float  # seconds, loop clock; 0 while nothing is owed


DebtorT = TypeVar("DebtorT", bound=Debtor)


WorkerT = TypeVar("WorkerT")
WorkerT_contra = TypeVar("WorkerT_contra", contravariant=True)


class Watch(Protocol[WorkerT_contra]):
    """Watches over the replies of workers."""

    def expect(self, worker: WorkerT_contra, batch: int, /) -> None:
        """A reply, or the next piece of one, is owed for that batch from now on."""

    def close(self) -> None:
        """Watch no more."""


class ReplyWatch(Generic[DebtorT]):
    """Calls `overdue` for every debtor that has let its time pass; looks once per timeout, not once per batch."""

    def __init__(
        self, timeout: float, debtors: Callable[[], Iterable[DebtorT]], overdue: Callable[[DebtorT], None]
    ) -> None:
        self._timeout = timeout  # seconds
        self._debtors = debtors
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def expect(self, debtor: DebtorT, _batch: int = 0) -> None:
        """A reply, or the next piece of one, is owed from now on, for the one batch that it has."""
        debtor.reply_due = self._loop.time() + self._timeout
        if self._timer is None:
            self._timer = self._loop.call_at(debtor.reply_due, self._check)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        owing = [debtor for debtor in self._debtors() if debtor.reply_due]
        for debtor in owing:
            if 0.0 < debtor.reply_due <= now:
                debtor.reply_due = 0.0
                self._overdue(debtor)
        pending = [debtor.reply_due for debtor in owing if debtor.reply_due]
        if pending:
            self._timer = self._loop.call_at(min(pending), self._check)


class Debt(Generic[WorkerT]):
    """A batch of a worker that may have others."""

    __slots__ = ("batch", "reply_due", "worker")

    def __init__(self, worker: WorkerT, batch: int) -> None:
        self.worker = worker
        self.batch = batch
        self.reply_due = 0.0


class BatchWatch(Generic[WorkerT]):
    """The same for workers with any number of batches: each batch has its own time."""

    def __init__(self, timeout: float, overdue: Callable[[Debt[WorkerT]], None]) -> None:
        self._debts: dict[int, Debt[WorkerT]] = {}  # by batch id
        self._watch = ReplyWatch(timeout, self._debts.values, overdue)

    def expect(self, worker: WorkerT, batch: int) -> None:
        """A reply, or the next piece of one, is owed for that batch from now on."""
        debt = self._debts.get(batch)
        if debt is None:
            debt = self._debts[batch] = Debt(worker, batch)
        self._watch.expect(debt)

    def settle(self, batch: int) -> None:
        """Nothing more is owed for that batch."""
        self._debts.pop(batch, None)

    def forget(self, worker: WorkerT) -> None:
        """That worker is gone, and owes nothing."""
        for debt in [debt for debt in self._debts.values() if debt.worker is worker]:
            debt.reply_due = 0.0
            del self._debts[debt.batch]

    def close(self) -> None:
        """Watch no more."""
        self._watch.close()
