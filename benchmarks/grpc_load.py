"""Predictions over gRPC under load, beside TorchServe's and a server of grpcio with nothing behind it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.client import NotInTime, Unreachable
from benchmarks.contenders import Contender
from benchmarks.figures import CLIENT_CPU, P50, P99, RATE, SERVER_CPU, Samples, grpc_figure
from benchmarks.h2load import H2loadRun, UnreadableH2loadReport, predictions_request, run_h2load
from benchmarks.load import WARM_UP_CLIENTS, Say
from benchmarks.plan import GRPC_POINTS, Deployment, Plan, Point
from benchmarks.servers import CallFailed, GrpcServer


class GrpcBench:
    """All contenders run side by side and take turns, as under HTTP."""

    def __init__(
        self, contenders: Sequence[Contender], plan: Plan, directory: Path, samples: Samples, say: Say
    ) -> None:
        self._contenders = contenders
        self._plan = plan
        self._directory = directory
        self._samples = samples
        self._say = say
        self._servers: dict[str, GrpcServer] = {}

    def run(self) -> None:
        if shutil.which("h2load") is None:
            self._samples.discard("all servers", "gRPC", "the load generator `h2load` is not installed")
            return
        try:
            running = [contender for contender in self._contenders if self._started(contender)]
            for turn in range(self._plan.rounds):
                for index, point in enumerate(GRPC_POINTS):
                    first = (turn + index) % len(running) if running else 0
                    for contender in (*running[first:], *running[:first]):
                        self._measure(contender, point, f"round {turn + 1}")
        finally:
            for server in self._servers.values():
                server.stop()

    def _started(self, contender: Contender) -> bool:
        """False for a server that has no gRPC here, or cannot be measured: the others go on without it."""
        if contender.launch_grpc is None:
            return False
        self._say(f"start {contender.title}, for gRPC")
        server = contender.launch_grpc(self._directory / f"{contender.name}-grpc")
        self._servers[contender.name] = server
        try:
            server.start()
            for deployment in dict.fromkeys(point.deployment for point in GRPC_POINTS):
                server.deploy(deployment)
                self._load(server, deployment, WARM_UP_CLIENTS, self._plan.warm_up)
        except (CallFailed, NotInTime, Unreachable, UnreadableH2loadReport) as error:
            self._samples.discard(contender.title, "gRPC", str(error))
            return False
        return True

    def _measure(self, contender: Contender, point: Point, when: str) -> None:
        server = self._servers[contender.name]
        before = server.tree.cpu()
        try:
            run = self._load(server, point.deployment, point.clients, self._plan.duration)
        except (CallFailed, UnreadableH2loadReport) as error:
            self._samples.discard(contender.title, f"gRPC {point.key}, {when}", str(error))
            return
        for kind, value in {
            RATE: run.rate,
            P50: run.p50 * 1e3,
            P99: run.p99 * 1e3,
            SERVER_CPU: (server.tree.cpu() - before) / run.requests * 1e6,
            CLIENT_CPU: run.cpu * run.rate / run.requests,
        }.items():
            self._samples.add(contender.name, grpc_figure(point, kind), value)
        self._say(f"{when}: gRPC {point.key:<12} {contender.title:<28} {run.rate:>8.0f}/s  p50 {run.p50 * 1e3:.2f} ms")

    def _load(self, server: GrpcServer, deployment: Deployment, clients: int, seconds: int) -> H2loadRun:
        """Raises CallFailed if a single call has failed, UnreadableH2loadReport."""
        handler = deployment.handler
        request = self._directory / f"{deployment.model}.grpc"
        request.write_bytes(predictions_request(deployment.model, handler.body))
        run = run_h2load(server.grpc_target, request, handler.answer.encode(), clients, seconds)
        if run.errors:
            raise CallFailed(f"{run.errors} of {run.requests} calls failed")
        return run
