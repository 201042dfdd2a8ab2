"""How much processor time a server takes while nobody asks it anything."""

from __future__ import annotations

import time

from benchmarks.figures import IDLE, IDLE_FRONTEND, Samples
from benchmarks.plan import Deployment
from benchmarks.servers import RestServer


def measure_idle(name: str, server: RestServer, deployment: Deployment, seconds: float, samples: Samples) -> None:
    """Millicores of all processes, and of those that are no workers."""
    workers = server.worker_pids(deployment)
    server.tree.settle()
    before, reaped = server.tree.clocks(), server.tree.reaped_cpu()
    begin = time.perf_counter()
    time.sleep(seconds)
    after, elapsed = server.tree.clocks(), time.perf_counter() - begin
    spent = {pid: clock - before.get(pid, 0.0) for pid, clock in after.items()}
    ended = server.tree.reaped_cpu() - reaped
    frontend = sum(cpu for pid, cpu in spent.items() if pid not in workers) + ended
    samples.add(name, IDLE, sum(spent.values(), ended) / elapsed * 1e3)
    samples.add(name, IDLE_FRONTEND, frontend / elapsed * 1e3)
