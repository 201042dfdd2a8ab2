"""A worker of one or more ranks: processes that a launcher has made, each with a connection of its own."""

from __future__ import annotations

from dataclasses import replace

import psutil

from modelserver.errors import Cause, Certificate
from modelserver.pool.certificate import Remains, certify
from modelserver.pool.contract import Owner
from modelserver.pool.link import Link, Peer
from modelserver.pool.nursery import Nursery
from modelserver.pool.orphans import Exit
from modelserver.pool.worker import Patience, Worker
from modelserver.wire.frames import Batch, Cancel, Chunk, Fatal, FromWorker, Hello, Load, Loaded, Metrics, Replies, Stop


class Rank:
    """One process of a worker: its connection, and its end. It reports to its worker."""

    def __init__(self, number: int, worker: LaunchedWorker) -> None:
        self.number = number
        self.remains = Remains(connected=True)
        self.hello: Hello | None = None
        self.link: Link | None = None
        self.linked = False  # the connection has been made and has not ended
        self.dead = False
        self._worker = worker

    @property
    def over(self) -> bool:
        """Nothing more will come of it, or it never came."""
        return self.link is None or (self.dead and not self.linked)

    @property
    def memory(self) -> int:
        """Resident memory in bytes, 0 if there is no process to ask."""
        try:
            return psutil.Process(self.hello.pid).memory_info().rss if self.hello and not self.dead else 0
        except psutil.Error:
            return 0

    def introduce(self, hello: Hello, link: Link) -> None:
        """The process has connected."""
        self.hello, self.link, self.linked = hello, link, True
        self._worker.rank_joined(self)

    def deliver(self, frame: FromWorker) -> None:
        """A frame arrived."""
        self._worker.rank_said(self, frame)

    def violated(self, error: Exception) -> None:
        """Something arrived that is not a frame, or too large."""
        self._worker.violated(error)

    def disconnected(self) -> None:
        """The connection is over and read to its end."""
        self.linked = False
        self._worker.rank_left(self)

    def exited(self, end: Exit | None, *, orphaned: bool = False) -> None:
        """The process is dead; None if its launcher has reaped it."""
        self.dead = True
        if end is not None:
            self.remains.status, self.remains.max_rss = end.status, end.max_rss
        self._worker.rank_left(self)


class LaunchedWorker(Worker):
    """Loaded when all ranks have loaded, answered for by rank 0, dead with the first rank that ends.

    The process that the nursery knows is the launcher; its end comes with that of every rank.
    """

    def __init__(self, owner: Owner, nursery: Nursery, patience: Patience, ranks: int, *, to_all_ranks: bool) -> None:
        super().__init__(owner, nursery, patience)
        self._ranks = [Rank(number, self) for number in range(ranks)]
        self._receivers = self._ranks if to_all_ranks else self._ranks[:1]  # of batches
        self._loaded = 0  # ranks
        self._failed: Rank | None = None  # the first that could not load
        self._after = 0  # pid of the rank that took the launcher with it

    @property
    def connected(self) -> bool:
        """All ranks have connected, now or before."""
        return all(rank.link is not None for rank in self._ranks)

    def seat(self, rank: int) -> Peer | None:
        """Who gets the connection of a rank; None if that one has connected, or is unknown."""
        free = (one for one in self._ranks if one.number == rank and one.link is None and not self.over.done())
        return next(free, None)

    # The owner's side.

    def send(self, frame: Load | Batch | Cancel | Stop) -> None:
        """Queue one frame for every rank that it is meant for. Never raises."""
        for rank in self._ranks if isinstance(frame, Load | Stop) else self._receivers:
            if rank.link is not None:
                rank.link.send(frame)

    def memory(self) -> int:
        """Resident memory of the launcher and of all ranks in bytes."""
        return super().memory() + sum(rank.memory for rank in self._ranks)

    # The nursery's reports.

    def spawned(self, pid: int, command: list[str], why: str) -> None:
        """The launcher exists."""
        super().spawned(pid, command, why)
        for rank in self._ranks:
            if rank.hello is not None:
                self._nursery.adopt(rank.hello.pid, pid, rank)

    def exited(self, end: Exit | None, *, orphaned: bool = False) -> None:
        """The launcher is dead and reaped."""
        self._after = end.after if end is not None else 0
        super().exited(end, orphaned=orphaned)

    # The ranks' reports.

    def rank_joined(self, rank: Rank) -> None:
        """A rank has connected; with the last one the worker has."""
        assert rank.hello is not None
        self._remains.connected = True
        if self._pid:
            self._nursery.adopt(rank.hello.pid, self._pid, rank)
        if not self.connected:
            return
        self._stop_waiting()
        self._hello = self._ranks[0].hello
        if self._pid and self._hello is not None:
            self._owner.connected(self._hello)

    def rank_said(self, rank: Rank, frame: FromWorker) -> None:
        """A frame arrived."""
        if isinstance(frame, Metrics):
            self._owner.reported(frame.metrics)
        elif isinstance(frame, Fatal):
            rank.remains.failure = frame.failure
        elif isinstance(frame, Loaded):
            self._rank_loaded(rank, frame)
        elif isinstance(frame, Replies | Chunk) and rank.number == 0:
            self._owner.received(frame)
        else:
            self.kill(Certificate(Cause.PROTOCOL, f"rank {rank.number} sent an unexpected {type(frame).__name__}"))

    def rank_left(self, rank: Rank) -> None:
        """A rank's connection or process has ended: the nursery ends the launcher, unless the process goes on."""
        if rank.over:
            self._check()
        elif not rank.linked and not self._exited:
            self._wait(self._patience.exit, self._does_not_exit)

    def _rank_loaded(self, rank: Rank, frame: Loaded) -> None:
        """All must have loaded; the first failure is the worker's."""
        self._loaded += 1
        if self._failed is not None:
            return
        if frame.code != 200:
            self._failed = rank
            rank.remains.failure = frame.failure
            self._owner.received(frame)
        elif self._loaded == len(self._ranks):
            self._owner.received(frame)

    # The end.

    def _check(self) -> None:
        if all(rank.over for rank in self._ranks):
            super()._check()

    def _disconnect(self) -> int:
        for rank in self._ranks:
            if rank.link is not None:
                rank.link.close()
        return min((0 if rank.link is None else rank.link.unread for rank in self._receivers), default=0)

    def _certify(self, last_output: tuple[str, ...]) -> Certificate:
        """That of the rank whose end was the first, else that of the launcher."""
        rank = self._failed or next((one for one in self._ranks if one.hello and one.hello.pid == self._after), None)
        if rank is None or self._remains.reason is not None:
            return super()._certify(last_output)
        rank.remains.last_output = last_output
        certificate = certify(rank.remains)
        if len(self._ranks) == 1:
            return certificate
        return replace(certificate, detail=f"rank {rank.number}: {certificate.detail}")
