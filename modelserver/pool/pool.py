"""Makes worker processes for the engine, and leaves none behind."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from modelserver.pool.by_hand import HandStarted
from modelserver.pool.contract import Owner, Spec
from modelserver.pool.launched import LaunchedWorker
from modelserver.pool.link import Peer
from modelserver.pool.listener import HELLO_TIMEOUT, Listener
from modelserver.pool.nursery import Nursery
from modelserver.pool.worker import Patience, Worker
from modelserver.wire.control import Spawn
from modelserver.wire.frames import Hello

_CLOSE_PATIENCE = 5.0  # seconds for killed workers to be gone


class Pool:
    """Workers by slot and generation. All methods run on the event loop."""

    def __init__(
        self,
        run_directory: Path,
        frame_limit: int,
        hidden: re.Pattern[str] | None,
        environment: dict[str, str],
        *,
        patience: Patience | None = None,
        hello_timeout: float = HELLO_TIMEOUT,
        by_hand: bool = False,
    ) -> None:
        """`hidden` are names, matched as a whole, that no worker gets to see; `environment` is set in every worker;
        `by_hand`: somebody else starts the processes.
        """
        self._run_directory = run_directory  # private: holds the socket that workers connect to
        self._frame_limit = frame_limit  # bytes of one frame from a worker
        self._hidden = hidden
        self._environment = environment
        self._patience = patience or Patience()
        self._hello_timeout = hello_timeout
        self._by_hand = by_hand
        self._workers: dict[tuple[int, int], Worker] = {}

    async def open(self, nursery: Nursery) -> None:
        """Begin to accept workers; the nursery is the pool's from now on, and ends with it."""
        self._nursery = nursery
        self._listener = Listener(self._run_directory, self._frame_limit, self._expected, self._hello_timeout)
        await self._listener.open()
        nursery.attach(asyncio.get_running_loop())

    def start(self, spec: Spec, owner: Owner) -> Worker:
        """Begin to start a process; the outcome comes to the owner."""
        self._listener.restore()
        worker = self._worker(spec, owner)
        key = (spec.slot, spec.generation)
        self._workers[key] = worker
        worker.over.add_done_callback(lambda _: self._workers.pop(key, None))
        worker.begin(self._order(spec, worker.token))
        return worker

    def _worker(self, spec: Spec, owner: Owner) -> Worker:
        if self._by_hand:
            return HandStarted(owner, self._nursery, self._patience, self._run_directory)
        if spec.launcher:
            return LaunchedWorker(owner, self._nursery, self._patience, spec.ranks, to_all_ranks=spec.to_all_ranks)
        return Worker(owner, self._nursery, self._patience)

    async def close(self) -> None:
        """Kill every worker, tell their owners, and end the nursery. Nothing survives."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.kill()
        if workers and self._nursery.ready is not None:  # one that still imports hears of nothing until it is ended
            await asyncio.wait([worker.over for worker in workers], timeout=_CLOSE_PATIENCE)
        self._listener.close()
        await self._nursery.close()

    def _order(self, spec: Spec, token: str) -> Spawn:
        environment = {**self._environment, **spec.environment}
        return Spawn(
            slot=spec.slot,
            generation=spec.generation,
            rank=0,
            socket=self._listener.path,
            token=token,
            title=spec.name,
            cwd=spec.cwd,
            python_path=list(spec.python_path),
            environment=environment,
            hidden=self._hidden_names(environment),
            threads=spec.threads,
            executable=spec.executable,
            launcher=list(spec.launcher),
            ranks=spec.ranks,
            fork=spec.fork,
            concurrent=spec.concurrent,
        )

    def _hidden_names(self, environment: dict[str, str]) -> list[str]:
        if self._hidden is None:
            return []
        names = {*self._nursery.environ, *environment, "PYTHONPATH"}
        return sorted(name for name in names if self._hidden.fullmatch(name))

    def _expected(self, hello: Hello) -> tuple[Peer, str] | None:
        """The worker that should connect next under this slot and generation, with its token."""
        worker = self._workers.get((hello.slot, hello.generation))
        seat = None if worker is None else worker.seat(hello.rank)
        return None if worker is None or seat is None else (seat, worker.token)
