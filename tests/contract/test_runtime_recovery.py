"""Workers that cannot load: time limits, pauses between attempts, the end of all attempts, and the health check."""

from __future__ import annotations

import os
import re
import signal

import pytest

from contract.server import ContractServer
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
PAUSES = [1, 1, 2, 3, 5, 8, 13]  # seconds


@check("runtime", 7)
def test_a_load_that_takes_too_long_fails(server: ContractServer) -> None:
    """The log names the cause in two lines that belong together."""
    server.prepare("late", starting="hang")
    answer = server.register("late.mar", startup_timeout=1)
    assert (answer.status_code, answer.json()["message"]) == (
        500,
        "Failed to start workers for model late version: 1.0",
    )
    server.logs(
        "ts_log.log",
        r"Backend worker error\norg\.pytorch\.serve\.wlm\.WorkerInitializationException: "
        r"Backend worker did not respond in given time",
    )


@check("runtime", 7)
def test_the_limit_of_a_reply_is_not_the_limit_of_a_load(server: ContractServer) -> None:
    """A slow start is fine where replies have to be fast."""
    with server.model("heavy", starting="slow", response_timeout=1, startup_timeout=30):
        assert len(server.ready_workers("heavy")) == 1


@check("runtime", 8)
@pytest.mark.parametrize("removal", ["scale to 0", "unregister"])
def test_a_worker_that_never_loads_is_given_up_in_the_end(server: ContractServer, removal: str) -> None:
    """Pauses grow while the window is open; when it is over the server is unhealthy until the worker is removed."""
    name = "hopeless-" + removal.replace(" ", "-")
    with server.model(name, starting="raise", config="maxRetryTimeoutInSec: 3\n", synchronous="false"):
        (worker,) = server.workers(name)
        assert server.ping() == 200
        eventually(lambda: server.ping() == 500)
        log = eventually(lambda: given_up(server.worker_log(worker["id"])))
        pauses = [int(found[1]) for line in log if (found := re.match(r"Retry worker: \d+ in (\d+) seconds", line))]
        assert pauses
        assert pauses == PAUSES[: len(pauses)]
        assert [worker["status"] for worker in server.workers(name)] == ["UNLOADING"]
        server.rescale(name, min_worker=0) if removal == "scale to 0" else server.delete(name)
        assert server.ping() == 200


def given_up(log: list[str]) -> list[str]:
    """The log, if a worker failed again and no other attempt is announced."""
    failures = [number for number, line in enumerate(log) if line == "Auto recovery failed again"]
    attempts = [number for number, line in enumerate(log) if line.startswith("Retry worker")]
    return log if failures and attempts and failures[-1] > attempts[-1] else []


@check("runtime", 9)
@check("model config", 11)
def test_a_window_of_0_means_no_second_chance(server: ContractServer) -> None:
    """After one crash the server is unhealthy, and nothing restarts."""
    with server.model("once", config="maxRetryTimeoutInSec: 0\n"):
        (worker,) = server.workers("once")
        assert server.ping() == 200
        server.ask("once", do="exit")
        eventually(lambda: server.ping() == 500)
        log = server.logged(worker["id"], "-> WORKER_STOPPED$", "Stopped|Auto recovery")
        assert not any(line.startswith("Retry worker") for line in log)
        assert [worker["status"] for worker in server.workers("once")] == ["UNLOADING"]
    assert server.ping() == 200


@fixed("hopeless models")
def test_what_nobody_will_ever_serve_is_refused(server: ContractServer) -> None:
    """When no worker of a model can recover any more, queued and new requests get 503."""
    with server.model("doomed", config="maxRetryTimeoutInSec: 0\n"):
        running = server.occupy("doomed", "running", "never")
        queued = server.ask_aside("doomed", id="queued")
        server.await_queue("doomed", 1)
        os.kill(server.workers("doomed")[0]["pid"], signal.SIGKILL)
        assert (running.result().status_code, running.result().json()["message"]) == (507, "Worker died.")
        assert queued.result().status_code == 503
        assert server.ask("doomed").status_code == 503
