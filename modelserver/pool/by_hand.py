"""A worker that somebody starts by hand, in a terminal or under a debugger: nothing is timed, nobody is killed."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Final

import msgspec

from modelserver.errors import Certificate
from modelserver.pool.contract import Owner
from modelserver.pool.link import Link
from modelserver.pool.nursery import Nursery
from modelserver.pool.worker import Patience, Worker
from modelserver.wire.control import ORDER_VARIABLE, Spawn
from modelserver.wire.frames import Hello

_ENTRY: Final = Path(__file__).parent.parent / "worker" / "__main__.py"


class HandStarted(Worker):
    """Writes its order down, says how to start the process, and waits for it to connect."""

    def __init__(self, owner: Owner, nursery: Nursery, patience: Patience, folder: Path) -> None:
        super().__init__(owner, nursery, patience)
        self._folder = folder  # private: an order holds the token
        self._order: Path | None = None
        self._command: list[str] = []
        self.over.add_done_callback(lambda _: self._forget_order())

    def begin(self, order: Spawn) -> None:
        """Ask for the process."""
        self._order = self._folder / f"order-{order.slot}-{order.generation}"
        self._command = [order.executable or sys.executable, "-P", str(_ENTRY), "--socket", order.socket]
        self._command += ["--async"] if order.concurrent else []
        try:
            self._write(self._order, msgspec.json.encode(order))
        except OSError as error:
            self._loop.call_soon(self.spawn_failed, f"{type(error).__name__}: {error}")
            return
        line = f'{ORDER_VARIABLE}="$(cat {shlex.quote(str(self._order))})" {shlex.join(self._command)}'
        self._owner.printed("stdout", f"debug=true: start worker {order.slot} by hand: {line}")

    def introduce(self, hello: Hello, link: Link) -> None:
        """The process has connected."""
        self._pid = hello.pid
        self._owner.spawned(hello.pid, self._command, "started by hand")
        super().introduce(hello, link)
        self._forget_order()

    def kill(self, reason: Certificate | None = None) -> None:
        """Let go of the process: it ends by itself when its connection does."""
        self._remains.killed = True
        self._remains.reason = self._remains.reason or reason
        self._loop.call_soon(self._finish)

    def disconnected(self) -> None:
        """The connection is over and read to its end; how the process ends is seen by whoever started it."""
        self._linked = False
        self.exited(None)

    @staticmethod
    def _write(path: Path, order: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(order)

    def _forget_order(self) -> None:
        if self._order is not None:
            self._order.unlink(missing_ok=True)
            self._order = None
