"""What a worker needs from others hangs or is gone: the nursery, and the socket that it connects to."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from fault_stage import PATIENCE, Victim, stage, unharmed

from harness.leaks import NURSERY
from harness.server import ServerProcess, eventually
from harness.signals import suspended

REMOVE = """
(found,) = Path(os.environ["TEMP"]).glob("ms-*/w")
found.unlink()
os._exit(1)
"""


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with stage(tmp_path_factory.mktemp("hangs"), config={"max_response_size": 100_000}) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(server: ServerProcess, clients: ThreadPoolExecutor) -> Victim:
    """A victim with a short response timeout."""
    model = Victim(server, "hasty", clients=clients)
    assert model.register(response_timeout=1).status_code == 200
    return model


@pytest.fixture(scope="module")
def victim(server: ServerProcess, clients: ThreadPoolExecutor) -> Victim:
    model = Victim(server, "victim", clients=clients)
    assert model.register(response_timeout=PATIENCE).status_code == 200
    return model


def test_a_nursery_that_hangs_holds_up_no_request(server: ServerProcess, hasty: Victim) -> None:
    (nursery,) = [process for process in server.tree()[1:] if " ".join(process.cmdline()).strip() == NURSERY]
    before = hasty.ready()
    with suspended(nursery.pid):
        answer = hasty.ask("time.sleep(600)").result(PATIENCE)
        assert (answer.status_code, answer.json()["cause"]["reason"]) == (500, "response timeout")
        assert hasty.slot()["status"] == "UNLOADING"
        assert server.predict("bystander").text == "ok"
        worker = psutil.Process(before["pid"])
        eventually(lambda: worker.status() == psutil.STATUS_ZOMBIE)  # dead, but its parent does not notice
    assert hasty.ask().result(PATIENCE).text == "fine"
    assert hasty.ready()["id"] == before["id"]
    eventually(lambda: not Path(f"/proc/{before['pid']}").exists())


def test_a_handler_that_removes_the_socket_of_the_workers(server: ServerProcess, victim: Victim) -> None:
    with unharmed(server):
        assert victim.strike(REMOVE).cause["exitCode"] == 1
        assert len(list(server.temp.glob("ms-*/w"))) == 1


def test_a_reply_that_is_too_large_is_told_of_and_survived(victim: Victim) -> None:
    answer = victim.endure("result = bytes(100_001)")
    assert (answer.status_code, answer.json()["message"]) == (500, "Worker died.")
    assert answer.json()["cause"] == {
        "reason": "reply too large",
        "detail": "a reply of 100001 bytes exceeds max_response_size of 100000 bytes",
    }
