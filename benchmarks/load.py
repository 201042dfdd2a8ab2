"""Throughput, latency and processor time under load, servers taking turns at every point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.client import NotInTime, Unreachable
from benchmarks.contenders import Contender
from benchmarks.figures import CLIENT_CPU, P50, P99, RATE, SERVER_CPU, Samples, load_figure
from benchmarks.plan import MLP, NOOP, Handler, Plan, Point
from benchmarks.servers import CallFailed, Server, predict
from benchmarks.wrk import UnreadableReport, run_wrk, write_script

WARM_UP_CLIENTS = 32

Say = Callable[[str], None]


class LoadBench:
    """All contenders run side by side, idle but for the one under load, so that a noisy machine treats them alike."""

    def __init__(
        self, contenders: Sequence[Contender], plan: Plan, directory: Path, samples: Samples, say: Say
    ) -> None:
        self._contenders = contenders
        self._plan = plan
        self._directory = directory
        self._samples = samples
        self._say = say
        self._servers: dict[str, Server] = {}
        self._scripts = {handler.name: self._write_script(handler) for handler in (NOOP, MLP)}

    def run(self) -> None:
        try:
            self._contenders = [contender for contender in self._contenders if self._started(contender)]
            for turn in range(self._plan.rounds):
                self._run_round(turn)
        finally:
            for server in self._servers.values():
                server.stop()

    def _started(self, contender: Contender) -> bool:
        """False for a server that cannot be measured: the others go on without it."""
        try:
            self._start(contender)
        except (CallFailed, NotInTime, Unreachable, UnreadableReport) as error:
            self._samples.discard(contender.title, "load", str(error))
            return False
        return True

    def _start(self, contender: Contender) -> None:
        """Start a server, deploy what it is measured on, and warm each model up."""
        deployments = list(dict.fromkeys(point.deployment for point in self._plan.points if contender.covers(point)))
        self._say(f"start {contender.title}")
        assert contender.launch is not None  # those without were not given to this bench
        server = contender.launch(deployments, self._directory / contender.name)
        self._servers[contender.name] = server
        server.start()
        for deployment in deployments:
            server.deploy(deployment)
            if not predict(server, deployment):
                raise CallFailed(f"{contender.title} gives no good answer for {deployment.model}")
            run_wrk(server.url(deployment), WARM_UP_CLIENTS, self._plan.warm_up, self._scripts[deployment.handler.name])

    def _run_round(self, turn: int) -> None:
        """Every point once; who goes first changes from point to point."""
        for index, point in enumerate(self._plan.points):
            first = (turn + index) % len(self._contenders)
            for contender in (*self._contenders[first:], *self._contenders[:first]):
                if contender.covers(point):
                    self._measure(contender, point, f"round {turn + 1}")

    def _measure(self, contender: Contender, point: Point, when: str) -> None:
        server = self._servers[contender.name]
        script = self._scripts[point.deployment.handler.name]
        before = server.tree.cpu()
        try:
            run = run_wrk(server.url(point.deployment), point.clients, self._plan.duration, script)
        except UnreadableReport as error:
            self._samples.discard(contender.title, f"{point.key}, {when}", f"wrk said {error}")
            return
        cpu = server.tree.cpu() - before
        report = run.report
        if report.errors:
            reason = f"{report.bad_statuses} bad statuses, {report.socket_errors} socket errors"
            self._samples.discard(contender.title, f"{point.key}, {when}", reason)
            return
        for kind, value in {
            RATE: report.rate,
            P50: report.p50 * 1e3,
            P99: report.p99 * 1e3,
            SERVER_CPU: cpu / report.requests * 1e6,
            CLIENT_CPU: run.cpu * report.rate / report.requests,
        }.items():
            self._samples.add(contender.name, load_figure(point, kind), value)
        self._say(f"{when}: {point.key:<14} {contender.title:<28} {report.rate:>8.0f}/s  p99 {report.p99 * 1e3:.2f} ms")

    def _write_script(self, handler: Handler) -> Path:
        path = self._directory / f"{handler.name}.lua"
        write_script(path, handler.mime, handler.body)
        return path
