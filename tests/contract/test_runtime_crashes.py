"""A worker that dies: what its client hears, what the log says, and that another process takes its place."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from contract.server import ContractServer, in_order
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"default_response_timeout": 2}
DID_NOT_RESPOND = (
    r"org\.pytorch\.serve\.wlm\.WorkerInitializationException: Backend worker did not respond in given time"
)


@pytest.fixture
def fragile(server: ContractServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A model for one test."""
    with server.model(request.node.name) as name:
        yield name


@check("runtime", 4)
def test_a_process_that_ends_is_replaced_in_its_slot(server: ContractServer, fragile: str) -> None:
    """The client gets 500; the slot keeps its id and start time and gets a new process."""
    (before,) = server.workers(fragile)
    assert_died(server.ask(fragile, do="exit"), 500)
    (after,) = server.ready(fragile)
    assert after["pid"] != before["pid"]
    assert (after["id"], after["startTime"]) == (before["id"], before["startTime"])
    server.logged(
        after["id"],
        r"State change WORKER_MODEL_LOADED -> WORKER_STOPPED$",
        r"^Auto recovery start timestamp: \d{13}$",
        rf"^Retry worker: {after['id']} in \d+ seconds\.$",
        r"State change WORKER_STOPPED -> WORKER_STARTED$",
        r"State change WORKER_STARTED -> WORKER_MODEL_LOADED$",
        r"^Auto recovery succeeded, reset recoveryStartTS$",
    )
    server.logged(after["id"], rf"^{after['id']} Worker disconnected\. WORKER_MODEL_LOADED$")  # anywhere


@check("runtime", 4)
@fixed("restart at once")
def test_a_worker_that_had_loaded_is_restarted_at_once(server: ContractServer, fragile: str) -> None:
    """Without a pause before the first attempt."""
    (worker,) = server.workers(fragile)
    server.ask(fragile, do="exit")
    server.logged(worker["id"], rf"^Retry worker: {worker['id']} in 0 seconds\.$", "Auto recovery succeeded")


@check("runtime", 4)
def test_a_worker_without_a_process_is_unloading(server: ContractServer) -> None:
    """Until the next process has loaded."""
    with server.model("slow") as name:
        (server.record / "slow.initialize").write_text("slow")
        server.ask(name, do="exit")
        assert [worker["status"] for worker in server.workers(name)] == ["UNLOADING"]
        server.ready(name)


@check("runtime", 5)
@fixed("signal 9")
def test_a_process_killed_by_signal_9_is_out_of_memory(server: ContractServer, fragile: str) -> None:
    """Nobody but the kernel kills so; with TorchServe the status is a matter of luck."""
    assert_died(server.ask(fragile, do="kill"), 507)
    server.ready(fragile)


@check("runtime", 6)
def test_an_overdue_reply_ends_the_worker(server: ContractServer, fragile: str) -> None:
    """The client gets 500, the log counts it, and the first attempt brings the worker back."""
    (worker,) = server.workers(fragile)
    assert_died(server.ask(fragile, do="wait", gate="never"), 500)
    assert server.ask(fragile, id="next").text == "next"
    log = server.logged(
        worker["id"],
        r"^Number or consecutive unsuccessful inference 1$",
        r"^Auto recovery start timestamp: ",
        r"^Retry worker: ",
        r"^Auto recovery succeeded, reset recoveryStartTS$",
    )
    server.logged(worker["id"], rf"^{worker['id']} Worker disconnected\.")
    assert "Auto recovery failed again" not in log
    eventually(lambda: in_order(server.log("ts_log.log").splitlines(), "Backend worker error$", f"^{DID_NOT_RESPOND}$"))


@check("runtime", 16)
def test_a_death_between_requests_is_not_noticed(server: ContractServer, fragile: str) -> None:
    """A request sent while the worker restarts waits for it."""
    (before,) = server.workers(fragile)
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: process(before) != process(server.workers(fragile)[0]))
    answer = server.ask(fragile, id="patient")
    assert (answer.status_code, answer.text) == (200, "patient")


@check("runtime", 16)
@fixed("unread requests")
def test_a_request_that_a_dead_process_never_read_is_served(server: ContractServer, fragile: str) -> None:
    """Though it was sent before anybody knew of the death."""
    (worker,) = server.workers(fragile)
    os.kill(worker["pid"], signal.SIGKILL)
    answer = server.ask(fragile, id="early")
    assert (answer.status_code, answer.text) == (200, "early")


def test_what_waited_behind_a_crash_is_served(server: ContractServer, fragile: str) -> None:
    """Only the batch that ran when the process died fails, and it is not run again."""
    busy = server.ask_aside(fragile, id="killer", do="exit")
    others = [server.ask_aside(fragile, id=f"other {number}") for number in range(3)]
    assert_died(busy.result(), 500)
    assert [other.result().text for other in others] == [f"other {number}" for number in range(3)]
    assert server.batches(fragile).count(["killer"]) == 1


def test_deaths_do_not_disturb_other_models(server: ContractServer, fragile: str) -> None:
    """Their workers keep their processes."""
    with server.model("neighbour") as neighbour:
        (before,) = server.workers(neighbour)
        server.ask(fragile, do="exit")
        server.ready(fragile)
        assert server.ready_workers(neighbour)[0]["pid"] == before["pid"]


def process(worker: dict[str, Any]) -> tuple[int, str]:
    return worker["pid"], worker["status"]


def assert_died(answer: Any, status: int) -> None:
    body = answer.json()
    assert answer.status_code == status
    assert {key: body[key] for key in ("code", "type", "message")} == {
        "code": status,
        "type": "InternalServerException",
        "message": "Worker died.",
    }
