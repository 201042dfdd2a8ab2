"""Named shared memory of a handler goes with its worker, however that one ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from fault_stage import PATIENCE, Victim, stage

from harness.leaks import NURSERY
from harness.server import ServerProcess, ended, eventually
from modelserver.process_group import is_caretaker

SEGMENT = """
from multiprocessing.shared_memory import SharedMemory
segment = SharedMemory(create=True, size=4096)
result = segment.name
"""

# One that nobody can wait for: it never ends by itself.
LASTING = """
code = "from multiprocessing.resource_tracker import main; import time; time.sleep(600)"
result = str(subprocess.Popen([sys.executable, "-c", code]).pid)
"""


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def victim(tmp_path: Path, clients: ThreadPoolExecutor) -> Iterator[Victim]:
    with stage(tmp_path) as server:
        model = Victim(server, "victim", clients=clients)
        assert model.register(response_timeout=PATIENCE).status_code == 200
        yield model


def segment_of(victim: Victim) -> Path:
    """A new segment of its worker."""
    segment = Path("/dev/shm", victim.endure(SEGMENT).text)
    assert segment.exists()
    return segment


def nursery_of(server: ServerProcess) -> psutil.Process:
    (nursery,) = [process for process in server.tree()[1:] if " ".join(process.cmdline()).strip() == NURSERY]
    return nursery


def test_it_goes_with_the_worker(victim: Victim) -> None:
    for deadly in ("os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)", "os.abort()"):
        segment = segment_of(victim)
        victim.strike(deadly)
        eventually(lambda gone=segment: not gone.exists())  # type: ignore[misc]


def test_it_goes_when_the_worker_is_removed(victim: Victim) -> None:
    segment = segment_of(victim)
    victim.server.scale(victim.name, 0)
    eventually(lambda: not segment.exists())
    victim.server.scale(victim.name, 1)
    segment = segment_of(victim)
    victim.unregister()
    eventually(lambda: not segment.exists())


def test_it_goes_when_the_server_stops(victim: Victim) -> None:
    segment = segment_of(victim)
    assert victim.server.stop() == 0
    assert not segment.exists()


def test_it_goes_with_the_nursery(victim: Victim) -> None:
    segment = segment_of(victim)
    victim.strike("time.sleep(600)", lambda pid: nursery_of(victim.server).kill())
    eventually(lambda: not segment.exists())


def test_it_goes_with_the_frontend(victim: Victim) -> None:
    segment = segment_of(victim)
    tree = victim.server.tree()
    tree[0].kill()
    eventually(lambda: not segment.exists())
    eventually(lambda: all(map(ended, tree)))


def test_a_caretaker_that_lasts_is_killed_behind_its_worker(victim: Victim) -> None:
    caretaker = psutil.Process(int(victim.endure(LASTING).text))
    eventually(lambda: is_caretaker(caretaker.pid))
    before = victim.ready()["pid"]
    os.kill(before, signal.SIGKILL)
    after = eventually(lambda: victim.slot()["pid"] != before and victim.ready()["pid"])
    links = [str(path.readlink()) for path in Path(f"/proc/{after}/fd").iterdir()]
    assert not any("pidfd" in link for link in links), "what the nursery watches is none of a worker's business"
    eventually(lambda: ended(caretaker))
    caretaker = psutil.Process(int(victim.endure(LASTING).text))
    eventually(lambda: is_caretaker(caretaker.pid))
    assert victim.server.stop() == 0
    assert ended(caretaker)
