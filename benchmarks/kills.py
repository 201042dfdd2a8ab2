"""A server one of whose two workers is killed every second, beside itself when it is left in peace."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.client import NotInTime, Unreachable
from benchmarks.contenders import Contender
from benchmarks.crowd import CrowdFailed, Load, Tally, nothing, run_crowd
from benchmarks.figures import (
    CALM_RATE,
    KILLS,
    KILLS_KEPT,
    KILLS_LOST,
    KILLS_RATE,
    KILLS_SLOWEST,
    KILLS_UNANSWERED,
    KILLS_UNEXPLAINED,
    Samples,
)
from benchmarks.lifecycle import wait_for_workers
from benchmarks.load import Say
from benchmarks.plan import KILL_CLIENTS, KILL_WORKERS, NOOP, Deployment, Plan
from benchmarks.servers import CallFailed, RestServer

DEPLOYMENT = Deployment(NOOP, 1)


@dataclass
class Killer:
    """SIGKILLs a READY worker every `interval` seconds, not the same one twice in a row if there is another."""

    server: RestServer
    deployment: Deployment
    interval: float = 1.0
    kills: int = 0
    last: str = ""  # id of the worker killed last

    def kill_for(self, seconds: float) -> None:
        """Start after the first interval, and end an interval early, so that every kill lies within the load."""
        begin = time.monotonic()
        for turn in range(1, int(seconds / self.interval)):
            time.sleep(max(0.0, begin + turn * self.interval - time.monotonic()))
            self.kill_one()

    def kill_one(self) -> None:
        """Nothing if no worker is READY: it has not recovered from the kill before."""
        workers = self.server.workers(self.deployment)
        if not workers:
            return
        self.last = next((worker for worker in workers if worker != self.last), self.last)
        try:
            os.kill(workers[self.last], signal.SIGKILL)
        except ProcessLookupError:  # died since it was asked for
            return
        self.kills += 1


class KillBench:
    """All servers run side by side, idle but for the one under load, and take turns."""

    def __init__(
        self, contenders: Sequence[Contender], plan: Plan, directory: Path, samples: Samples, say: Say
    ) -> None:
        self._contenders = [contender for contender in contenders if contender.launch_rest is not None]
        self._plan = plan
        self._directory = directory
        self._samples = samples
        self._say = say
        self._servers: dict[str, RestServer] = {}

    def run(self) -> None:
        try:
            start = "kill loop, start"
            self._contenders = [each for each in self._contenders if self._try(each, start, partial(self._start, each))]
            for turn in range(self._plan.rounds):
                self._run_round(turn)
        finally:
            for server in self._servers.values():
                server.stop()

    def _run_round(self, turn: int) -> None:
        first = turn % max(len(self._contenders), 1)
        for contender in (*self._contenders[first:], *self._contenders[:first]):
            when = f"kill loop, round {turn + 1}"
            self._try(contender, when, partial(self._measure, contender, when))

    def _try(self, contender: Contender, when: str, action: Callable[[], None]) -> bool:
        """False if the action failed: the other servers go on without this one."""
        try:
            action()
        except (CallFailed, CrowdFailed, NotInTime, Unreachable) as error:
            self._samples.discard(contender.title, when, str(error))
            return False
        return True

    def _start(self, contender: Contender) -> None:
        assert contender.launch_rest is not None
        self._say(f"start {contender.title}")
        server = contender.launch_rest(self._directory / f"{contender.name}-kills")
        self._servers[contender.name] = server
        server.start()
        server.deploy(DEPLOYMENT)
        server.scale(DEPLOYMENT, KILL_WORKERS)
        wait_for_workers(server, DEPLOYMENT, KILL_WORKERS)
        self._load(server, self._plan.warm_up)

    def _measure(self, contender: Contender, when: str) -> None:
        """Once without and once with kills. A single failure without kills voids both."""
        server, seconds = self._servers[contender.name], self._plan.kills
        wait_for_workers(server, DEPLOYMENT, KILL_WORKERS)
        server.tree.settle()
        calm = self._load(server, seconds)
        if calm.lost or not calm.good:
            raise CallFailed(f"without a kill: {calm}")
        killer = Killer(server, DEPLOYMENT)
        tally = self._load(server, seconds, lambda: killer.kill_for(seconds))
        if not killer.kills:
            raise CallFailed("no worker was READY to be killed")
        for figure, value in kill_figures(calm, tally, killer.kills, seconds).items():
            self._samples.add(contender.name, figure, value)
        self._say(f"{when}: {contender.title:<28} {killer.kills} kills, {tally}")

    def _load(self, server: RestServer, seconds: float, meanwhile: Callable[[], None] = nothing) -> Tally:
        url = server.url(DEPLOYMENT)
        return run_crowd(Load(url, KILL_CLIENTS, seconds, NOOP.mime, NOOP.body, NOOP.answer), meanwhile)


def kill_figures(calm: Tally, tally: Tally, kills: int, seconds: float) -> dict[str, float]:
    """What both runs of `seconds` say together; at least one good answer was given in the calm one."""
    return {
        CALM_RATE: calm.good / seconds,
        KILLS_RATE: tally.good / seconds,
        KILLS_KEPT: tally.good / calm.good,
        KILLS: kills,
        KILLS_LOST: tally.lost / kills,
        KILLS_UNEXPLAINED: tally.unexplained,
        KILLS_UNANSWERED: tally.unanswered,
        KILLS_SLOWEST: tally.slowest,
    }
