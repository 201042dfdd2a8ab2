"""How long registering, scaling and recovering from a killed worker take, and what the server costs when idle."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from benchmarks.client import poll
from benchmarks.figures import MEMORY, RECOVERY, REGISTER, SCALE, SCALE_FURTHER, Samples
from benchmarks.idle import measure_idle
from benchmarks.plan import MOST_WORKERS, NOOP, WORKERS_AFTER_SCALING, Deployment
from benchmarks.servers import READY_INTERVAL, RestServer, predict

RETRY_INTERVAL = 0.005  # seconds between the calls of the client that waits for a killed worker's successor
DEPLOYMENT = Deployment(NOOP, 1)


def measure_lifecycle(name: str, server: RestServer, idle: float, samples: Samples) -> None:
    """One life of a fresh server: register, lose the only worker, grow to four, rest for `idle` s, grow to eight."""
    try:
        server.start()
        server.tree.settle()
        samples.add(name, REGISTER, seconds(lambda: server.register(DEPLOYMENT)))
        wait_for_workers(server, DEPLOYMENT, 1)
        poll(lambda: predict(server, DEPLOYMENT), "first answer", interval=READY_INTERVAL)
        (pid,) = server.worker_pids(DEPLOYMENT)
        samples.add(name, RECOVERY, seconds(lambda: kill_and_wait(server, pid)))
        wait_for_workers(server, DEPLOYMENT, 1)
        samples.add(name, SCALE, seconds(lambda: server.scale(DEPLOYMENT, WORKERS_AFTER_SCALING)))
        wait_for_workers(server, DEPLOYMENT, WORKERS_AFTER_SCALING)
        samples.add(name, MEMORY, server.tree.pss() / 2**20)
        measure_idle(name, server, DEPLOYMENT, idle, samples)
        server.scale(DEPLOYMENT, 1)
        wait_for_workers(server, DEPLOYMENT, 1)
        server.tree.settle()
        samples.add(name, SCALE_FURTHER, seconds(lambda: server.scale(DEPLOYMENT, MOST_WORKERS)))
        wait_for_workers(server, DEPLOYMENT, MOST_WORKERS)
    finally:
        server.stop()


def kill_and_wait(server: RestServer, pid: int) -> None:
    """SIGKILL the only worker, and call until its successor gives a good answer."""
    os.kill(pid, signal.SIGKILL)
    poll(lambda: predict(server, DEPLOYMENT), "answer after kill -9", interval=RETRY_INTERVAL)


def wait_for_workers(server: RestServer, deployment: Deployment, count: int) -> None:
    poll(lambda: server.ready_workers(deployment) == count, f"{count} READY workers", interval=READY_INTERVAL)


def seconds(action: Callable[[], None]) -> float:
    """Wall-clock time of a call."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin
