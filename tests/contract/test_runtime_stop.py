"""The end of a server: accepted work is done first, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from contract.server import ContractServer
from harness.server import ended, eventually

check = pytest.mark.check
fixed = pytest.mark.fixed


@check("runtime", 28)
@fixed("stopping")
def test_a_stopping_server_finishes_the_running_request(start_server: Callable[..., ContractServer]) -> None:
    """It answers 200, and neither a process nor a socket file nor a model directory remains."""
    server = start_server()
    server.prepare("last")
    assert server.register("last.mar", workers=2).status_code == 200
    call = server.occupy("last", "last words", "last")
    tree = server.tree()
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    eventually(lambda: refuses(server))
    assert not call.done()
    server.open("last")
    assert (call.result().status_code, call.result().text) == (200, "last words")
    stopping.join()
    assert server.wait() == 0
    assert all(map(ended, tree))
    assert not sockets(server.temp)
    models = server.temp / "models"
    assert not models.exists() or not list(models.iterdir())


def refuses(server: ContractServer) -> bool:
    """New connections are not accepted any more, or new requests refused."""
    try:
        return server.ping() != 200
    except httpx.TransportError:
        return True


def sockets(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]


@check("runtime", 29)
@check("worker protocol", 11)
def test_workers_end_with_a_killed_server(start_server: Callable[..., ContractServer]) -> None:
    """Within seconds, although nobody tells them."""
    server = start_server()
    server.prepare("orphan")
    assert server.register("orphan.mar", workers=2).status_code == 200
    workers = [psutil.Process(worker["pid"]) for worker in server.workers("orphan")]
    os.kill(server.server_pid, signal.SIGKILL)
    eventually(lambda: all(map(ended, workers)))
