"""Whatever way a server ends, its files end with it or with the next server; other servers' files are left alone."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from harness.archives import NOOP, pack
from harness.server import ServerProcess, ended, eventually
from harness.signals import kill, suspend


def files(server: ServerProcess) -> list[str]:
    """What is in the temporary directory: run directories, and models as `models/<name>`."""
    models = [f"models/{path.name}" for path in server.temp.glob("models/*")]
    return sorted([*models, *(path.name for path in server.temp.glob("ms-*"))])


def kill_everything(server: ServerProcess) -> None:
    """As a power cut would: nobody is left who could clean up."""
    assert server.process is not None
    tree = server.tree()
    (nursery,) = psutil.Process(server.process.pid).children()
    suspend(nursery.pid)
    kill(server.process.pid)
    kill(nursery.pid)
    server.wait()
    eventually(lambda: all(map(ended, tree)))


@contextmanager
def stalled_download() -> Iterator[str]:
    """Address of an archive of which only the beginning ever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:
        clients: list[socket.socket] = []

        def answer() -> None:
            client, _ = listening.accept()
            clients.append(client)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nPK")

        threads.submit(answer)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/stalled.mar"
        for client in clients:
            client.close()


def test_a_killed_frontend_leaves_nothing(tmp_path: Path) -> None:
    operators = tmp_path / "store" / "plain"
    with ServerProcess(tmp_path) as server:
        pack(server.store, "m", NOOP)
        operators.mkdir()
        (operators / "h.py").write_text(NOOP)
        assert server.register("m.mar", workers=2).status_code == 200
        assert server.register("plain", model_name="plain", handler="h.py").status_code == 200
        assert len(files(server)) == 3
        server.stop(signal.SIGKILL)
    assert files(server) == []
    assert (operators / "h.py").read_text() == NOOP


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_end_in_the_middle_of_a_download_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with (
        ServerProcess(tmp_path, config={"drain_timeout": 0}) as server,
        stalled_download() as url,
        ThreadPoolExecutor(1) as clients,
    ):
        call = clients.submit(server.register, url)
        eventually(lambda: list(server.store.glob(".*.part")))
        server.stop(number)
        assert isinstance(call.exception() or call.result(), httpx.HTTPError | httpx.Response)
    assert list(server.store.iterdir()) == []
    assert files(server) == []


def test_the_end_without_a_temporary_directory(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        pack(server.store, "m", NOOP)
        server.register("m.mar")
        shutil.rmtree(server.temp)
        server.stop(signal.SIGKILL)  # checks that no process is left


def test_the_next_server_cleans_up_after_a_power_cut(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, models=["m=m.mar"])
    pack(server.store, "m", NOOP)
    server.start()
    eventually(lambda: server.ready_workers("m"))
    left = files(server)
    kill_everything(server)
    assert files(server) == left
    assert len(left) == 2

    with ServerProcess(tmp_path, models=["m=m.mar"]) as heir:
        assert heir.predict("m").text == "ok"
        assert not set(left) & set(files(heir))
        assert len(files(heir)) == 2
        assert f"Removed what a killed server left behind: {server.temp / left[1]}" in heir.output
    assert files(heir) == []


def test_servers_that_share_a_temporary_directory_leave_each_other_alone(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    shared = {"TEMP": str(tmp_path / "one" / "temp")}
    with ServerProcess(tmp_path / "one") as one:
        pack(one.store, "m", NOOP)
        one.register("m.mar")
        first = files(one)
        with ServerProcess(tmp_path / "two", environment=shared) as two:
            pack(two.store, "m", NOOP)
            two.register("m.mar")
            both = files(one)
            assert len(both) == 4
            assert set(first) < set(both)
            two.stop(signal.SIGKILL)
            assert files(one) == first
        assert one.scale("m", 2).status_code == 200  # a new worker finds socket and model
        assert one.predict("m").text == "ok"
    assert files(one) == []


def test_a_temporary_directory_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, environment={"TEMP": "/proc"})
    server.start(wait=False)
    assert server.wait() == 1
    assert "Invalid configuration: cannot write to the temporary directory /proc: " in server.output
