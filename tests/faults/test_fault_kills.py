"""Signals from outside, at every stage of a worker's life."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from fault_stage import PATIENCE, Victim, stage, unharmed

from harness.archives import pack
from harness.server import ServerProcess, eventually
from harness.signals import kill, suspend, suspended

LARGE = 6_000_000  # bytes of a reply: far more than a socket holds, and less than the limit

TORCH = """
import torch
from pathlib import Path

def handle(data, context):
    if data is None:
        return None
    if bytes(data[0]["body"]) != b"work":
        return [str(torch.ones(3).sum().item())]
    Path("{busy}").touch()
    while True:
        torch.mm(torch.ones(64, 64), torch.ones(64, 64))
"""


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with stage(tmp_path_factory.mktemp("kills"), torch=True) as running:
        yield running


@pytest.fixture(scope="module")
def victim(server: ServerProcess, clients: ThreadPoolExecutor) -> Victim:
    model = Victim(server, "victim", clients=clients)
    assert model.register(response_timeout=PATIENCE).status_code == 200
    return model


@pytest.fixture(scope="module")
def hasty(server: ServerProcess, clients: ThreadPoolExecutor) -> Victim:
    """A victim with a short response timeout."""
    model = Victim(server, "hasty", clients=clients)
    assert model.register(response_timeout=2).status_code == 200
    return model


@pytest.fixture(autouse=True)
def others_are_unharmed(server: ServerProcess, victim: Victim, hasty: Victim) -> Iterator[None]:
    with unharmed(server):
        yield


@pytest.mark.parametrize(
    ("number", "status", "reason"),
    [
        (signal.SIGKILL, 507, "out of memory"),
        (signal.SIGSEGV, 500, "killed by a signal"),
        (signal.SIGABRT, 500, "killed by a signal"),
        (signal.SIGBUS, 500, "killed by a signal"),
        (signal.SIGHUP, 500, "killed by a signal"),
        (signal.SIGRTMIN + 3, 500, "killed by a signal"),
    ],
)
def test_a_deadly_signal_while_the_handler_runs(victim: Victim, number: int, status: int, reason: str) -> None:
    fall = victim.strike("time.sleep(600)", lambda pid: os.kill(pid, number))
    assert fall.answer.status_code == status
    assert fall.cause["reason"] == reason
    names = {each.value: each.name for each in signal.Signals}
    assert fall.cause["signal"] == names.get(number, f"SIG{int(number)}")
    assert fall.cause["signal"] in fall.cause["detail"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_for_the_whole_group_do_not_end_a_worker(victim: Victim, number: int) -> None:
    assert victim.endure("result = 'undisturbed'", lambda pid: os.kill(pid, number)).text == "undisturbed"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGHUP])
def test_a_deadly_signal_while_idle_is_no_clients_business(victim: Victim, number: int) -> None:
    before = victim.ready()
    victim.close("initialize")
    os.kill(before["pid"], number)
    fallen = victim.fallen()
    waiting = [victim.ask(), victim.ask()]
    victim.wait_for_pending(2)
    victim.open("initialize")
    assert [answer.result(PATIENCE).text for answer in waiting] == ["fine", "fine"]
    assert fallen["cause"]["signal"] == signal.Signals(number).name
    after = victim.ready()
    assert after["pid"] != before["pid"]
    assert (after["id"], after["startTime"]) == (before["id"], before["startTime"])


@pytest.mark.parametrize("gate", ["import", "initialize"])
def test_sigkill_while_the_next_process_loads(victim: Victim, gate: str) -> None:
    before = victim.ready()
    victim.close(gate)
    os.kill(before["pid"], signal.SIGKILL)
    loading = victim.reached(gate)
    assert loading != before["pid"]
    waiting = victim.ask()
    victim.wait_for_pending(1)
    os.kill(loading, signal.SIGKILL)
    slot = eventually(lambda: slot if "nextRetryInSec" in (slot := victim.slot()) else {})
    assert (slot["status"], slot["cause"]["signal"]) == ("UNLOADING", "SIGKILL")
    assert 0 <= slot["nextRetryInSec"] <= 1, "the first attempt came at once, the second one a second later"
    victim.open(gate)
    assert waiting.result(PATIENCE).text == "fine"
    assert victim.ready()["id"] == before["id"]


@pytest.mark.parametrize("gate", ["import", "initialize"])
def test_sigkill_while_a_model_is_registered(server: ServerProcess, clients: ThreadPoolExecutor, gate: str) -> None:
    newcomer = Victim(server, f"newcomer-{gate}", clients=clients)
    newcomer.close(gate)
    registration = clients.submit(newcomer.register)
    os.kill(newcomer.reached(gate), signal.SIGKILL)
    answer = registration.result(PATIENCE)
    assert answer.status_code == 507
    assert (answer.json()["cause"]["reason"], answer.json()["cause"]["signal"]) == ("out of memory", "SIGKILL")
    assert server.request("GET", f"/models/{newcomer.name}", "Management").status_code == 404


def test_sigkill_with_half_a_reply_written(victim: Victim) -> None:
    """The frontend stands still, so that the worker can write no more than the socket holds."""
    before = victim.ready()
    frontend = victim.server.tree()[0]
    victim.close("handle")
    struck = victim.ask(f"result = bytes({LARGE}); wait_at('return')")
    worker = psutil.Process(victim.reached("handle"))
    queued = victim.ask()
    victim.wait_for_pending(1)
    victim.close("return")
    victim.open("handle")
    victim.reached("return")
    with suspended(frontend.pid):
        victim.open("return")
        eventually(lambda: is_blocked(worker))
        kill(worker.pid)
    answer = struck.result(PATIENCE)
    assert (answer.status_code, answer.json()["cause"]["signal"]) == (507, "SIGKILL")
    assert queued.result(PATIENCE).text == "fine"
    assert victim.ready()["pid"] != before["pid"]


def is_blocked(process: psutil.Process) -> bool:
    """Not a trace of work for a while: it waits for somebody."""
    before = process.cpu_times()
    for _ in range(20):
        time.sleep(0.005)
        if process.status() != psutil.STATUS_SLEEPING:
            return False
    return bool(process.cpu_times() == before)


def test_sigkill_while_replying_leaves_no_torn_reply(victim: Victim) -> None:
    """Sooner and later in the reply: each answer is the whole reply, or the truth about the worker."""
    statuses = []
    for delay in range(8):
        pid = victim.ready()["pid"]
        victim.close("return")
        struck = victim.ask(f"result = bytes({LARGE}); wait_at('return'); time.sleep(0.002 * {delay})")
        assert victim.reached("return") == pid
        victim.open("return")
        time.sleep(0.01)  # the reply's own time: there is no event in the middle of a write
        os.kill(pid, signal.SIGKILL)
        answer = struck.result(PATIENCE)
        statuses.append(answer.status_code)
        if answer.status_code == 200:
            assert answer.content == bytes(LARGE)
        else:
            assert (answer.status_code, answer.json()["cause"]["signal"]) == (507, "SIGKILL")
        eventually(lambda gone=pid: victim.slot()["pid"] != gone and victim.ready())  # type: ignore[misc]
    assert len(statuses) == 8


def test_a_busy_worker_that_is_stopped_is_overdue(hasty: Victim) -> None:
    fall = hasty.strike("time.sleep(600)", suspend)
    assert fall.answer.status_code == 500
    assert fall.cause["reason"] == "response timeout"
    assert "responseTimeout of 2 s" in fall.cause["detail"]


def test_an_idle_worker_that_is_stopped_loses_no_request(hasty: Victim) -> None:
    """It has not read the request when it is given up, so another process gets it."""
    before = hasty.ready()
    suspend(before["pid"])
    requests = [hasty.ask(), hasty.ask()]
    assert [request.result(PATIENCE).text for request in requests] == ["fine", "fine"]
    after = hasty.ready()
    assert after["pid"] != before["pid"]
    assert after["id"] == before["id"]


def test_a_worker_that_goes_on_after_a_stop_in_time_is_left_alone(victim: Victim) -> None:
    def stop_and_go(pid: int) -> None:
        with suspended(pid):
            pass

    assert victim.endure("result = 'undisturbed'", stop_and_go).text == "undisturbed"


def test_sigkill_in_the_middle_of_a_torch_operation(server: ServerProcess, clients: ThreadPoolExecutor) -> None:
    busy = server.directory / "busy"
    pack(server.store, "matrices", TORCH.format(busy=busy))
    assert server.register("matrices.mar").status_code == 200
    (before,) = server.ready_workers("matrices")
    struck = clients.submit(server.predict, "matrices", b"work")
    eventually(busy.exists)
    queued = clients.submit(server.predict, "matrices", b"sum")
    eventually(lambda: server.describe("matrices")["jobQueueStatus"]["pendingRequests"] == 1)
    os.kill(before["pid"], signal.SIGKILL)
    assert struck.result(PATIENCE).json()["cause"]["signal"] == "SIGKILL"
    assert queued.result(PATIENCE).text == "3.0"
    (after,) = server.ready_workers("matrices")
    assert (after["id"], after["pid"] != before["pid"]) == (before["id"], True)
    assert server.request("DELETE", "/models/matrices", "Management").status_code == 200
