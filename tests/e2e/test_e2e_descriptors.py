"""File descriptors: the frontend takes all it may have, its children do not, and running out of them harms nobody."""

from __future__ import annotations

import resource
import signal
import socket
import time
from pathlib import Path

import httpx
import psutil

from harness.archives import NOOP, pack
from harness.server import DEADLINE, MODELSERVER, ServerProcess, ended, eventually

LASTING = httpx.Limits(keepalive_expiry=None)  # a connection is kept, however slow the test is
LIMIT = (
    "import resource\ndef handle(data, context):\n    return None if data is None else [str(resource.getrlimit(7)[0])]"
)


def limits(pid: int) -> tuple[int, int]:
    """Soft and hard limit of a process."""
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def highest(pid: int) -> int:
    return max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())


def is_open(connection: socket.socket) -> bool:
    """A ping on it is answered."""
    try:
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


def connect(server: ServerProcess) -> socket.socket:
    url = httpx.URL(server.url())
    return socket.create_connection((url.host, url.port or 80), timeout=DEADLINE)


def test_only_the_frontend_takes_the_hard_limit(tmp_path: Path) -> None:
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
    program = tmp_path / "limited"
    program.write_text(f'#!/bin/sh\nulimit -Sn 500\nulimit -Hn {hard}\nexec "{MODELSERVER}" "$@"\n')
    program.chmod(0o755)
    with ServerProcess(tmp_path, program=program) as server:
        assert server.process is not None
        frontend = psutil.Process(server.process.pid)
        pack(server.store, "limit", LIMIT)
        assert server.register("limit.mar").status_code == 200
        assert limits(frontend.pid) == (hard, hard)
        (nursery,) = frontend.children()
        assert limits(nursery.pid) == (500, hard)
        assert server.predict("limit").text == "500"
        assert f"Open files: at most {hard}, in workers 500." in server.output

        nursery.send_signal(signal.SIGKILL)
        eventually(lambda: ended(nursery) and server.ready_workers("limit"))
        assert server.predict("limit").text == "500"


def test_too_many_connections_are_closed_and_everything_else_goes_on(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, httpx.Client(timeout=DEADLINE, limits=LASTING) as client:
        assert server.process is not None
        frontend = psutil.Process(server.process.pid)
        pack(server.store, "m", NOOP)
        server.register("m.mar")
        assert client.post(server.url() + "/predictions/m").text == "ok"
        assert client.get(server.url("Management") + "/models/m").status_code == 200
        limit = descriptors(frontend.pid) + 100
        resource.prlimit(frontend.pid, resource.RLIMIT_NOFILE, (limit, limits(frontend.pid)[1]))

        crowd = [connect(server) for _ in range(200)]
        try:
            inside = [connection for connection in crowd if is_open(connection)]
            assert 0 < len(inside) < 100
            server.says(f"Too many connections for {limit} file descriptors: new ones are closed.")

            used = frontend.cpu_times()
            time.sleep(1)
            now = frontend.cpu_times()
            assert now.user + now.system - used.user - used.system < 0.5, "it spins"

            assert client.post(server.url() + "/predictions/m").text == "ok"
            scaled = client.put(server.url("Management") + "/models/m?min_worker=3&synchronous=true")
            assert scaled.status_code == 200, scaled.text
            assert all(map(is_open, inside))
        finally:
            for connection in crowd:
                connection.close()
        eventually(lambda: descriptors(frontend.pid) < limit - 70)
        assert server.predict("m").text == "ok"


def test_no_descriptor_left_at_all(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server, httpx.Client(timeout=DEADLINE, limits=LASTING) as client:
        assert server.process is not None
        frontend = psutil.Process(server.process.pid)
        pack(server.store, "m", NOOP)
        server.register("m.mar")
        assert client.post(server.url() + "/predictions/m").text == "ok"
        before = limits(frontend.pid)
        # Nothing above what is open now; a few connections find the gaps below.
        resource.prlimit(frontend.pid, resource.RLIMIT_NOFILE, (highest(frontend.pid) + 1, before[1]))
        crowd = [connect(server) for _ in range(60)]
        try:
            assert sum(map(is_open, crowd)) < 30
            assert client.post(server.url() + "/predictions/m").text == "ok"
        finally:
            for connection in crowd:
                connection.close()
        resource.prlimit(frontend.pid, resource.RLIMIT_NOFILE, before)
        assert server.predict("m").text == "ok"
