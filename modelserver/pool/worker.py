"""One worker process, from the order to its death certificate."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import psutil

from modelserver.errors import Cause, Certificate
from modelserver.pool.certificate import Remains, certify
from modelserver.pool.contract import Owner
from modelserver.pool.link import Link, Peer
from modelserver.pool.nursery import Nursery
from modelserver.pool.orphans import Exit, status_of_dead
from modelserver.pool.output import Output
from modelserver.wire.control import Spawn
from modelserver.wire.frames import (
    Batch,
    Cancel,
    Chunk,
    Fatal,
    FromWorker,
    Hello,
    Load,
    Loaded,
    Metrics,
    Replies,
    Stop,
)

_KEPT_LINES, _KEPT_LENGTH = 50, 2000  # of the output, for the certificate; lines and characters of a line


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the pool waits for a worker, in seconds."""

    connect: float = 120.0  # from the order until the process has connected
    exit: float = 1.0  # for the exit of a process that has ended its connection
    last_words: float = 5.0  # for that of one that has told why it ends: threads or functions may hold it up
    kill: float = 5.0  # for the nursery's report of the end of a process that was killed, or has ended by itself
    pipes: float = 0.5  # for the ends of connection and pipes of a dead process: descendants may hold them


class Worker:
    """The link handed to the owner; also what nursery, connection and pipes report to.

    The owner hears `gone` when exit status, end of the connection and ends of both pipes are known.
    """

    def __init__(self, owner: Owner, nursery: Nursery, patience: Patience) -> None:
        self.token = secrets.token_hex(16)
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()  # resolves when the owner has heard `gone`
        self._owner = owner
        self._nursery = nursery
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None  # of what is waited for at the moment
        self._report: asyncio.TimerHandle | None = None  # of the end is awaited
        self._outputs: list[Output] = []
        self._link: Link | None = None
        self._linked = False  # the connection has been made and has not ended
        self._hello: Hello | None = None  # kept until the process is known
        self._pid = 0  # 0 before the process exists
        self._exited = False
        self._remains = Remains()
        self._last_output: deque[str] = deque(maxlen=_KEPT_LINES)

    @property
    def connected(self) -> bool:
        """Its process has connected, now or before."""
        return self._link is not None

    def seat(self, rank: int) -> Peer | None:
        """Who gets the connection of a rank; None if that one has connected, or is unknown."""
        return self if rank == 0 and not self.connected and not self.over.done() else None

    def begin(self, order: Spawn) -> None:
        """Order the process; the outcome comes to the owner."""
        self._wait(self._patience.connect, self._startup_time_out)
        writers: list[int] = []
        try:
            for stream in ("stdout", "stderr"):
                writers.append(self._make_pipe(stream))
            self._nursery.spawn(order, writers[0], writers[1], self)
        except (OSError, ValueError) as error:
            for writer in writers:
                os.close(writer)
            self._loop.call_soon(self.spawn_failed, f"{type(error).__name__}: {error}")

    def _make_pipe(self, stream: str) -> int:
        """Returns the write end of a pipe whose lines are printed as `stream`."""
        reader, writer = os.pipe()
        self._outputs.append(Output(reader, partial(self._print, stream), self._check))
        return writer

    # The owner's side.

    def send(self, frame: Load | Batch | Cancel | Stop) -> None:
        """Queue one frame; nothing happens unless the worker has connected. Never raises."""
        if self._link is not None:
            self._link.send(frame)

    def kill(self, reason: Certificate | None = None) -> None:
        """SIGKILL the process group; the first reason given stands in the certificate."""
        self._remains.killed = True
        self._remains.reason = self._remains.reason or reason
        if self._pid:
            self._nursery.kill(self._pid)
            self._await_report()

    def memory(self) -> int:
        """Resident memory in bytes, 0 if there is no process to ask."""
        try:
            return psutil.Process(self._pid).memory_info().rss if self._pid and not self._exited else 0
        except psutil.Error:
            return 0

    # The nursery's reports.

    def spawned(self, pid: int, command: list[str], why: str) -> None:
        """The process exists."""
        self._pid = pid
        if self.over.done():  # given up
            self._nursery.kill(pid)
            return
        for output in self._outputs:
            output.start(self._loop)
        self._owner.spawned(pid, command, why)
        if self._remains.killed:
            self.kill()
        if self._hello is not None:
            self._owner.connected(self._hello)

    def spawn_failed(self, reason: str) -> None:
        """There will be no process."""
        self._remains.reason = self._remains.reason or Certificate(Cause.SPAWN, reason)
        self._finish()

    def exited(self, end: Exit | None, *, orphaned: bool = False) -> None:
        """The process is dead and reaped; or it will not end, and is given up."""
        if self._exited:
            return
        self._exited = True
        if self._report is not None:
            self._report.cancel()
        self._remains.orphaned = orphaned
        if end is not None:
            self._remains.status, self._remains.max_rss = end.status, end.max_rss or None
        self._wait(self._patience.pipes, self._finish)
        self._check()

    # The connection's reports.

    def introduce(self, hello: Hello, link: Link) -> None:
        """The process has connected."""
        self._link = link
        self._linked = True
        self._remains.connected = True
        self._stop_waiting()
        if self._pid:
            self._owner.connected(hello)
        else:
            self._hello = hello  # it has overtaken the nursery's report

    def deliver(self, frame: FromWorker) -> None:
        """A frame arrived."""
        if isinstance(frame, Replies | Chunk):
            self._owner.received(frame)
        elif isinstance(frame, Loaded):
            self._remains.failure = frame.failure
            self._owner.received(frame)
        elif isinstance(frame, Metrics):
            self._owner.reported(frame.metrics)
        elif isinstance(frame, Fatal):
            self._remains.failure = frame.failure
            self._wait(self._patience.last_words, self._does_not_exit)
        else:
            self.kill(Certificate(Cause.PROTOCOL, f"an unexpected {type(frame).__name__}"))

    def violated(self, error: Exception) -> None:
        """Something arrived that is not a frame, or too large."""
        self.kill(Certificate(Cause.PROTOCOL, str(error)))

    def disconnected(self) -> None:
        """The connection is over and read to its end."""
        self._linked = False
        if self._exited:
            self._check()
        else:
            self._wait(self._patience.exit, self._does_not_exit)

    # The end.

    def _print(self, stream: str, line: str) -> None:
        self._last_output.append(line[:_KEPT_LENGTH])
        self._owner.printed(stream, line)

    def _wait(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back later, unless something else is waited for by then."""
        self._stop_waiting()
        self._timer = self._loop.call_later(seconds, callback)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _startup_time_out(self) -> None:
        self.kill(Certificate(Cause.LOAD_TIMEOUT, "Backend worker startup time out."))
        if not self._pid:
            self._finish()  # the nursery itself hangs

    def _does_not_exit(self) -> None:
        if status_of_dead(self._pid) is None:
            silent = Certificate(Cause.EXIT, "closed its connection, but did not exit")
            self.kill(None if self._remains.failure else silent)
        else:
            self._await_report()  # the nursery is slow

    def _await_report(self) -> None:
        if self._report is None and not self._exited:
            self._report = self._loop.call_later(self._patience.kill, self._end_without_nursery)

    def _end_without_nursery(self) -> None:
        """The nursery hangs, or the process does: kill it from here, and wait no longer."""
        self._nursery.kill_without_it(self._pid)
        self._report = self._loop.call_later(self._patience.exit, self._give_up)

    def _give_up(self) -> None:
        status = status_of_dead(self._pid)
        self.exited(None if status is None else Exit(status, 0))

    def _check(self) -> None:
        if self._exited and not self._linked and not any(output.open for output in self._outputs):
            self._finish()

    def _disconnect(self) -> int:
        """End the connection; how many of the last batches were still unread."""
        if self._link is None:
            return 0
        self._link.close()
        return self._link.unread

    def _finish(self) -> None:
        """Everything is known, or will not be: tell the owner, once."""
        if self.over.done():
            return
        self.over.set_result(None)
        self._stop_waiting()
        unread = self._disconnect()
        for output in self._outputs:
            output.close()
        self._owner.gone(self._certify(tuple(self._last_output)), unread=unread)

    def _certify(self, last_output: tuple[str, ...]) -> Certificate:
        self._remains.last_output = last_output
        return certify(self._remains)
