"""Asked to stop, the server tells its clients, finishes what it has accepted, and ends in time whatever hangs."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from harness.archives import NOOP, pack
from harness.clients import StrictClient
from harness.server import ServerProcess, eventually
from harness.signals import suspend

# Answers once the test writes the file `go` into the model store.
WAITING = """
import os, time
def handle(data, context):
    if data is None:
        return None
    open("started", "w").close()
    while not os.path.exists({go!r}):
        time.sleep(0.02)
    return ["done"] * len(data)
"""
HANGING_LOAD = """
import time
class Handler:
    def initialize(self, context):
        open("started", "w").close()
        time.sleep(1000)
    def handle(self, data, context):
        return ["done"] * len(data)
"""
FLOOD = """
from ts.handler_utils.utils import send_intermediate_predict_response
def handle(data, context):
    if data is None:
        return None
    for _ in range(10):
        send_intermediate_predict_response(["x" * 1_000_000] * len(data), context.request_ids, "ok", 200, context)
    open("started", "w").close()
    return ["end"] * len(data)
"""


class Stage:
    """A server with one model that waits for the test, or hangs."""

    def __init__(self, directory: Path, **config: Any) -> None:
        self.server = ServerProcess(directory, config={"default_workers_per_model": 1, **config})
        self.clients = ThreadPoolExecutor(8)
        self._go = directory / "go"

    @contextmanager
    def running(self, handler: str = WAITING) -> Iterator[ServerProcess]:
        """The server with the model `m` on one worker; it has to end as if nothing had happened."""
        pack(self.server.store, "m", handler.format(go=str(self._go)) if handler is WAITING else handler)
        with self.clients, self.server:
            assert self.server.register("m.mar", synchronous=str(handler is not HANGING_LOAD)).status_code in (200, 202)
            yield self.server
            assert self.server.wait() == 0
            assert "Traceback" not in self.server.output
            assert "never retrieved" not in self.server.output
            assert self.server.lines[-1].endswith("Torchserve stopped.")
            assert not list((self.server.temp / "models").iterdir())

    def let_go(self) -> None:
        """The waiting handler answers."""
        self._go.touch()

    def busy(self) -> Future[httpx.Response]:
        """A request that the worker has begun."""
        call = self.clients.submit(self.server.predict, "m")
        eventually(self.begun)
        return call

    def queued(self) -> Future[httpx.Response]:
        """A request that waits for the worker."""
        call = self.clients.submit(self.server.predict, "m")
        eventually(lambda: self.server.describe("m")["jobQueueStatus"]["pendingRequests"] == 1)
        return call

    def begun(self) -> list[Path]:
        """The files by which handlers tell that they have begun."""
        return list((self.server.temp / "models").glob("*/started"))

    def signal(self, number: int = signal.SIGTERM) -> None:
        assert self.server.process is not None
        self.server.process.send_signal(number)

    def says(self, text: str) -> None:
        """Wait until the server has logged that."""
        eventually(lambda: text in self.server.output)


def test_a_lame_server_is_unhealthy_and_serves_until_the_second_signal(tmp_path: Path) -> None:
    stage = Stage(tmp_path, lame_duck_delay=1000)
    with stage.running(NOOP) as server:
        client = StrictClient(int(server.url().rpartition(":")[2]))
        assert client.request("/predictions/m") == (200, b"ok")
        stage.signal()
        stage.says("Lame duck for 1000 s")
        assert client.request("/predictions/m") == (200, b"ok")
        assert client.events == {"told to close": 1}, "on the connection that it had, and at once"
        ping = server.request("GET", "/ping")
        assert (ping.status_code, ping.json()["status"]) == (500, "Unhealthy")
        for _ in range(3):
            answer = server.predict("m")
            assert (answer.text, answer.headers["connection"]) == ("ok", "close")
        assert server.request("GET", "/models", "Management").headers["connection"] == "close"
        stage.signal()


def test_the_lame_duck_delay_ends_by_itself(tmp_path: Path) -> None:
    stage = Stage(tmp_path, lame_duck_delay=1)
    with stage.running(NOOP):
        stage.signal(signal.SIGINT)
        stage.says("Draining: 0 requests in flight, at most 10 s.")


def test_accepted_work_is_finished(tmp_path: Path) -> None:
    stage = Stage(tmp_path, drain_timeout=1000)
    with stage.running() as server:
        calls = [stage.busy(), stage.queued()]
        port = int(server.url().rpartition(":")[2])
        with connected(port) as fresh, connected(port) as half, connected(port) as idle:
            half.sendall(b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab")
            idle.sendall(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b"Healthy" in idle.recv(65536)
            stage.signal()
            stage.says("Draining: 3 requests in flight, at most 1000 s.")
            fresh.sendall(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b"connection: close" in fresh.recv(65536)
            assert idle.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                connected(port)
            stage.let_go()
            half.sendall(b"cd")
            assert half.recv(65536).endswith(b"\r\n\r\ndone")
        for call in calls:
            assert (call.result().text, call.result().headers["connection"]) == ("done", "close")


@pytest.mark.parametrize("limit", [0, 1])
def test_what_is_not_finished_in_time_is_answered_too(tmp_path: Path, limit: int) -> None:
    stage = Stage(tmp_path, drain_timeout=limit)
    with stage.running():
        running, queued = stage.busy(), stage.queued()
        stage.signal()
        assert running.result().status_code == 500
        assert running.result().json()["message"] == "Worker died."
        assert queued.result().status_code == 503
        assert queued.result().json()["message"].startswith('Model "m" has no worker to serve inference request.')


def test_a_third_signal_ends_the_drain(tmp_path: Path) -> None:
    stage = Stage(tmp_path, drain_timeout=1000)
    with stage.running():
        call = stage.busy()
        stage.signal(signal.SIGTERM)
        stage.says("Draining: 1 request in flight, at most 1000 s.")
        stage.signal(signal.SIGINT)
        stage.signal(signal.SIGHUP)
        assert call.result().json()["message"] == "Worker died."


def test_a_stopped_worker_does_not_hold_up_the_end(tmp_path: Path) -> None:
    stage = Stage(tmp_path, drain_timeout=1)
    with stage.running() as server:
        call = stage.busy()
        (worker,) = server.ready_workers("m")
        suspend(worker["pid"])
        stage.signal()
        assert call.result().status_code == 500
    assert not psutil.pid_exists(worker["pid"])


def test_a_client_that_does_not_read_its_stream_does_not_hold_up_the_end(tmp_path: Path) -> None:
    stage = Stage(tmp_path, drain_timeout=1)
    with stage.running(FLOOD) as server, connected(int(server.url().rpartition(":")[2])) as client:
        client.sendall(b"POST /predictions/m HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        eventually(stage.begun)
        stage.signal()
        stage.says("Drain ends with 1 request in flight: cut.")


def test_a_worker_that_hangs_in_its_load_does_not_hold_up_the_end(tmp_path: Path) -> None:
    stage = Stage(tmp_path, drain_timeout=1000)
    with stage.running(HANGING_LOAD):
        eventually(stage.begun)
        stage.signal()


def test_a_registration_that_hangs_is_answered_and_undone(tmp_path: Path) -> None:
    stage = Stage(tmp_path, drain_timeout=1)
    with stage.running(NOOP) as server:
        pack(server.store, "hangs", HANGING_LOAD)
        call = stage.clients.submit(server.register, "hangs.mar")
        eventually(stage.begun)
        stage.signal()
        assert call.result().status_code == 503, call.result().text
        assert call.result().json()["message"] == "The server stops: no model is registered any more."


def test_a_download_that_hangs_does_not_hold_up_the_end(tmp_path: Path) -> None:
    stage = Stage(tmp_path, drain_timeout=1)
    with stage.running(NOOP) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        call = stage.clients.submit(server.register, f"http://127.0.0.1:{silent.getsockname()[1]}/late.mar")
        request, _ = silent.accept()
        with request:
            stage.signal()
            answer = call.result()
            assert answer.status_code == 503
            assert answer.json()["message"] == "The server stops: no model is registered any more."
            assert server.wait() == 0


def test_a_server_that_is_still_starting_stops(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, models=["m=m.mar"])
    pack(server.store, "m", HANGING_LOAD)
    server.start(wait=False)
    try:
        eventually(lambda: "Loading initial models" in server.output)
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    finally:
        server.stop()
    assert "Traceback" not in server.output
    assert server.lines[-1].endswith("Torchserve stopped.")


def test_a_nursery_that_still_imports_does_not_hold_up_the_end(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, models=["m=m.mar"])
    pack(server.store, "m", NOOP)
    server.start(wait=False)
    try:
        (nursery,) = eventually(lambda: [child for child in server.tree()[1:] if "nursery" in child.cmdline()])
        suspend(nursery.pid)
        eventually(lambda: server.started)
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
    finally:
        server.stop()
    assert not psutil.pid_exists(nursery.pid)
    assert "Traceback" not in server.output


def connected(port: int) -> socket.socket:
    """A connection to the server."""
    return socket.create_connection(("127.0.0.1", port), timeout=60)
