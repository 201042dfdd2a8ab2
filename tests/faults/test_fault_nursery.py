"""The death of those who watch over workers: the nursery, and the frontend."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from fault_stage import PATIENCE, Bystander, Victim, stage

from harness.leaks import NURSERY, Census, assert_settles
from harness.server import ServerProcess, ended, eventually
from harness.signals import kill, suspend, suspended


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with stage(tmp_path_factory.mktemp("nursery")) as running:
        yield running


@pytest.fixture(scope="module")
def victim(server: ServerProcess, clients: ThreadPoolExecutor) -> Victim:
    model = Victim(server, "victim", clients=clients)
    assert model.register(response_timeout=PATIENCE).status_code == 200
    return model


@pytest.fixture(autouse=True)
def nothing_leaks(server: ServerProcess, victim: Victim) -> Iterator[None]:
    """No worker survives its nursery; but every slot gets another one, and no request is lost that had not started."""
    victim.ready()
    eventually(lambda: server.ready_workers("bystander"))
    before = Census.of(server)
    yield
    eventually(lambda: server.ready_workers("bystander"))
    assert server.predict("bystander").text == "ok"
    assert_settles(server, before)


def nursery_of(server: ServerProcess) -> psutil.Process:
    """The nursery, once there is one."""
    found = eventually(lambda: [process for process in server.tree()[1:] if is_nursery(process)])
    assert len(found) == 1
    return found[0]


def is_nursery(process: psutil.Process) -> bool:
    try:
        return " ".join(process.cmdline()).strip() == NURSERY
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def test_while_workers_are_idle(server: ServerProcess, victim: Victim) -> None:
    before = victim.ready()
    nursery = nursery_of(server)
    victim.close("initialize")
    nursery.kill()
    fallen = victim.fallen()
    waiting = [victim.ask(), victim.ask()]
    victim.wait_for_pending(2)
    victim.open("initialize")
    assert [answer.result(PATIENCE).text for answer in waiting] == ["fine", "fine"]
    assert fallen["cause"]["reason"] == "killed by a signal"
    assert "nursery" in fallen["cause"]["detail"]
    after = victim.ready()
    assert (after["id"], after["startTime"]) == (before["id"], before["startTime"])
    assert after["pid"] != before["pid"]
    assert nursery_of(server).pid != nursery.pid


def test_while_a_worker_is_busy(server: ServerProcess, victim: Victim) -> None:
    nursery = nursery_of(server)
    fall = victim.strike("time.sleep(600)", lambda pid: nursery.kill())
    assert (fall.answer.status_code, fall.cause["reason"]) == (500, "killed by a signal")
    assert "nursery" in fall.cause["detail"]


def test_by_the_handler_of_a_worker(server: ServerProcess, victim: Victim) -> None:
    fall = victim.strike("os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)")
    assert (fall.answer.status_code, fall.cause["reason"]) == (500, "killed by a signal")


def test_together_with_the_busy_worker(server: ServerProcess, victim: Victim) -> None:
    nursery = nursery_of(server)

    def kill_both(pid: int) -> None:
        suspend(nursery.pid)  # it must not get to tell how the worker ended
        kill(pid, nursery.pid)

    assert victim.strike("time.sleep(600)", kill_both).answer.status_code in (500, 507)


@pytest.mark.parametrize("gate", ["import", "initialize"])
def test_while_a_worker_loads(server: ServerProcess, victim: Victim, gate: str) -> None:
    before = victim.ready()
    victim.close(gate)
    os.kill(before["pid"], signal.SIGKILL)
    loading = psutil.Process(victim.reached(gate))
    waiting = victim.ask()
    victim.wait_for_pending(1)
    kill(nursery_of(server).pid)
    eventually(lambda: ended(loading))  # before the gate opens: else it may load to the end, and take the request along
    victim.open(gate)
    assert waiting.result(PATIENCE).text == "fine"
    assert victim.ready()["id"] == before["id"]


def test_while_its_successor_is_not_ready_yet(server: ServerProcess, victim: Victim) -> None:
    before = victim.ready()
    first = nursery_of(server)
    kill(first.pid)
    second = eventually(lambda: [child for child in server.tree()[0].children() if child.pid != first.pid])[0]
    kill(second.pid)
    assert victim.ask().result(PATIENCE).text == "fine"
    assert victim.ready()["id"] == before["id"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_for_the_whole_group_do_not_end_it(server: ServerProcess, victim: Victim, number: int) -> None:
    before = victim.ready()
    nursery = nursery_of(server)
    nursery.send_signal(number)
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: victim.slot()["pid"] != before["pid"] and victim.ready())
    assert nursery_of(server).pid == nursery.pid


def test_a_stopped_nursery_holds_up_deaths_but_no_predictions(server: ServerProcess, victim: Victim) -> None:
    nursery = nursery_of(server)

    def kill_behind_its_back(pid: int) -> None:
        with suspended(nursery.pid):
            kill(pid)
            assert server.predict("bystander").text == "ok"

    (bystander,) = server.ready_workers("bystander")
    fall = victim.strike("time.sleep(600)", kill_behind_its_back)
    assert fall.answer.status_code == 507
    assert fall.cause["signal"] == "SIGKILL"
    assert nursery_of(server).pid == nursery.pid
    assert server.ready_workers("bystander")[0]["pid"] == bystander["pid"]


@contextmanager
def doomed(directory: Path, clients: ThreadPoolExecutor) -> Iterator[tuple[ServerProcess, Victim]]:
    """A server that does not survive the test."""
    with stage(directory) as server:
        model = Victim(server, "victim", clients=clients)
        assert model.register(response_timeout=PATIENCE).status_code == 200
        yield server, model


@pytest.mark.parametrize("gate", ["handle", "initialize", "import"])
def test_nothing_survives_a_killed_frontend(tmp_path: Path, clients: ThreadPoolExecutor, gate: str) -> None:
    family = "for _ in range(2): os.fork() or time.sleep(600)\nsubprocess.run(['setsid', 'sleep', '600'])"
    with doomed(tmp_path, clients) as (server, model):
        asking = Bystander(server)
        model.close(gate)
        if gate == "handle":
            struck = model.ask(family)
            model.reached(gate)
            model.open(gate)
            eventually(lambda: any("sleep" in process.name() for process in server.tree()))
            assert not struck.done()
        else:
            os.kill(model.ready()["pid"], signal.SIGKILL)
            model.reached(gate)
        tree = server.tree()
        assert len(tree) >= 4
        tree[0].kill()
        eventually(lambda: all(map(ended, tree)))
        asking.stop()


def test_nothing_survives_a_killed_frontend_whose_nursery_is_stopped_for_a_while(
    tmp_path: Path, clients: ThreadPoolExecutor
) -> None:
    with doomed(tmp_path, clients) as (server, _):
        tree = server.tree()
        nursery = nursery_of(server)
        with suspended(nursery.pid):
            kill(tree[0].pid)
        eventually(lambda: all(map(ended, tree)))
