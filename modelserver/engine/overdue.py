"""Workers that owe a reply: one timer per model version, set to the earliest one that is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar


class Debtor(Protocol):
    """Whoever owes a reply."""

    reply_due: float  # seconds, loop clock; 0 while nothing is owed


DebtorT = TypeVar("DebtorT", bound=Debtor)


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

    def expect(self, debtor: DebtorT) -> None:
        """A reply, or the next piece of one, is owed from now on."""
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
            if debtor.reply_due <= now:
                debtor.reply_due = 0.0
                self._overdue(debtor)
        pending = [debtor.reply_due for debtor in owing if debtor.reply_due]
        if pending:
            self._timer = self._loop.call_at(min(pending), self._check)
