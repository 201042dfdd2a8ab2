"""Under load, nothing is lost: restarts on one port, version swaps, more and fewer workers."""

from __future__ import annotations

from pathlib import Path

from harness.archives import pack
from harness.clients import Load, bodies
from harness.server import ServerProcess, eventually

ANSWERS = """
def handle(data, context):
    return None if data is None else ["{answer}"] * len(data)
"""
RESTARTS = 4


def test_restarts_on_one_port_lose_no_request(tmp_path: Path) -> None:
    first = ServerProcess(tmp_path, models=["m=m.mar"], config={"default_workers_per_model": 1})
    pack(first.store, "m", ANSWERS.format(answer="one"))
    first.start()
    port = port_of(first)
    config = {"default_workers_per_model": 1, "inference_address": f"http://127.0.0.1:{port}"}
    server = first
    try:
        with Load(port, "/predictions/m") as load:
            for _ in range(RESTARTS):
                answered = len(load.answers)
                eventually(lambda seen=answered: len(load.answers) > seen + 50 or load.failures)  # type: ignore[misc]
                assert server.stop() == 0
                server = ServerProcess(tmp_path, models=["m=m.mar"], config=config)
                server.start()
            answered = len(load.answers)
            eventually(lambda: len(load.answers) > answered + 50 or load.failures)
    finally:
        server.stop()
    assert load.failures == []


def test_a_version_is_swapped_without_a_failed_request(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        for number in ("1", "2", "3"):
            pack(server.store, "m", ANSWERS.format(answer=number), version=f"{number}.0", archive=f"m{number}")
        assert server.register("m1.mar", model_name="m").status_code == 200
        with Load(port_of(server), "/predictions/m") as load:
            for old, new in (("1", "2"), ("2", "3")):
                eventually(lambda now=old: now.encode() in bodies(load.answers[-20:]))  # type: ignore[misc]
                assert server.register(f"m{new}.mar", model_name="m").status_code == 200
                assert server.request("PUT", f"/models/m/{new}.0/set-default", "Management").status_code == 200
                assert server.request("DELETE", f"/models/m/{old}.0", "Management").status_code == 200
            eventually(lambda: bodies(load.answers[-20:]) == {b"3"})
        assert load.failures == []
        assert bodies(load.answers) == {b"1", b"2", b"3"}


def test_more_and_fewer_workers_without_a_failed_request(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        pack(server.store, "m", ANSWERS.format(answer="ok"))
        assert server.register("m.mar").status_code == 200
        with Load(port_of(server), "/predictions/m") as load:
            for workers in (3, 1, 2, 1):
                answered = len(load.answers)
                assert server.scale("m", workers).status_code == 200
                eventually(lambda seen=answered: len(load.answers) > seen + 50 or load.failures)  # type: ignore[misc]
                assert len(server.ready_workers("m")) == workers
        assert load.failures == []


def port_of(server: ServerProcess) -> int:
    """Of the inference API."""
    return int(server.url().rpartition(":")[2])
