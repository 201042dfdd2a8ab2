"""Disks that are full: serving goes on, and what cannot be done says why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_stage import Victim, stage, undisturbed, unharmed

from harness.archives import NOOP, pack
from harness.disks import fill, needs_mounts, tiny_disk
from harness.server import ServerProcess, eventually

pytestmark = needs_mounts()
SIZE = 2 << 20  # bytes of a disk


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Its temporary directory is tiny."""
    with tiny_disk(tmp_path / "temp", SIZE), stage(tmp_path) as running:
        yield running


def pack_large(server: ServerProcess) -> None:
    noise = os.urandom(SIZE).hex()
    pack(server.store, "large", NOOP, files={"weights.txt": noise})


def test_an_archive_larger_than_the_disk_is_refused_without_a_trace(server: ServerProcess) -> None:
    pack_large(server)
    pack(server.store, "small", NOOP)
    with unharmed(server):
        answer = server.register("large.mar")
        assert (answer.status_code, answer.json()["type"]) == (500, "InternalServerException")
        assert "large.mar" in answer.json()["message"]
        assert server.request("GET", "/models/large", "Management").status_code == 404
    assert server.register("small.mar").status_code == 200, "the room is there again"
    assert server.predict("small").text == "ok"


def test_workers_are_replaced_on_a_full_disk(server: ServerProcess, clients: ThreadPoolExecutor) -> None:
    victim = Victim(server, "victim", clients=clients)
    assert victim.register().status_code == 200
    fill(server.temp)
    with unharmed(server):
        assert victim.strike("os._exit(3)").cause["exitCode"] == 3
        assert victim.endure("result = 'still here'").text == "still here"
        answer = server.register("bystander.mar", model_name="another")
        assert (answer.status_code, answer.json()["message"]) == (500, "Failed to save model: bystander.mar")
        assert answer.json()["cause"]["reason"] == "storage failed"
        assert answer.json()["cause"]["detail"].startswith("No space left on device: ")
    (server.temp / "filler").unlink()
    assert server.register("bystander.mar", model_name="another").status_code == 200


def test_a_full_log_disk_stops_the_log_files_and_nothing_else(tmp_path: Path, clients: ThreadPoolExecutor) -> None:
    with tiny_disk(tmp_path / "logs", SIZE), stage(tmp_path) as server:
        victim = Victim(server, "victim", clients=clients)
        assert victim.register().status_code == 200
        fill(tmp_path / "logs", leave=1 << 16)
        with undisturbed(server):
            assert victim.endure("for n in range(20_000): print('line', n)").text == "fine"
            assert victim.strike("os._exit(3)").cause["exitCode"] == 3
            eventually(lambda: "Unable to write to file" in server.output)
            assert victim.endure("print('on the console')").text == "fine"
            eventually(lambda: "on the console" in server.output)
        assert server.request("GET", "/metrics", "Metrics").status_code == 200
