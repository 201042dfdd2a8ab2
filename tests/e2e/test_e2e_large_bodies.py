"""Large bodies between clients and handlers: whatever becomes of the memory that frontend and worker share for them."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.archives import pack
from harness.server import ServerProcess, eventually
from modelserver.wire.places import SHARED_FROM, WORTH_SHARING

ECHO = """
import os, signal
def handle(data, context):
    if data is None:
        return None
    context.cancelled  # reads what the frontend has sent meanwhile
    for row in data:
        if bytes(row.get("body", b""))[:4] == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
    return [row["body"] if "body" in row else row["a"] + row["b"] for row in data]
"""

# Cuts, overwrites and closes what it finds open.
HARMFUL = """
import os
def handle(data, context):
    if data is None:
        return None
    for name in os.listdir("/proc/self/fd"):
        try:
            if "memfd:" in os.readlink(f"/proc/self/fd/{name}"):
                descriptor = int(name)
                for size in (0, 1 << 40):
                    try:
                        os.ftruncate(descriptor, size)
                    except OSError:
                        pass
                for offset in range(0, os.fstat(descriptor).st_size, 1 << 20):
                    os.pwrite(descriptor, b"?" * 4096, offset)
                os.close(descriptor)
        except OSError:
            pass
    return [row["body"] for row in data]
"""

# Its process cannot share memory.
APART = """
import mmap
def refuse(*arguments, **options):
    raise OSError("no such thing here")
mmap.mmap = refuse
def handle(data, context):
    return None if data is None else [row["body"] for row in data]
"""


class Server(ServerProcess):
    """Knows what its processes share."""

    def worker(self, model: str) -> int:
        """Pid of the worker of a model that is ready."""

        (worker,) = eventually(lambda: self.ready_workers(model))
        return int(worker["pid"])

    def shares(self, model: str) -> bool:
        """Whether the worker of a model has memory of the frontend's."""
        return "memfd:modelserver-bodies" in Path(f"/proc/{self.worker(model)}/maps").read_text()

    def memory(self) -> list[Path]:
        """The frontend's descriptors of such memory."""
        assert self.process is not None
        descriptors = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return [path for path in descriptors if "memfd:modelserver-bodies" in os.path.realpath(path)]

    def beginnings(self) -> list[bytes]:
        """First bytes of the requests that lie in it."""
        found = []
        for path in self.memory():
            with path.open("rb") as file:
                found.append(file.read(64))
        return found

    def echo(self, model: str, body: bytes) -> bytes:
        """What the model answers."""
        answer = self.predict(model, body)
        assert answer.status_code == 200, answer.text[:1000]
        return answer.content

    def warm_up(self, model: str) -> None:
        """Afterwards its large bodies are shared, if they can be."""
        for size in (100_000, 200_000):
            assert self.echo(model, body(size)) == body(size)


def body(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("large")) as running:
        for name, handler in (("echo", ECHO), ("harmful", HARMFUL), ("apart", APART)):
            pack(running.store, name, handler)
            answer = running.register(f"{name}.mar", batch_size=4)
            assert answer.status_code == 200, answer.text
        yield running


def test_small_bodies_share_nothing(server: Server) -> None:
    for _ in range(3):
        assert server.echo("echo", body(1000)) == body(1000)
    assert not server.shares("echo")


def test_bodies_of_all_sizes_come_back(server: Server) -> None:
    edges = [edge + more for edge in (SHARED_FROM, WORTH_SHARING) for more in (-1, 0, 1)]
    sizes = [1, 1000, *edges, 100_000, 1_000_003, 6_000_000] * 3
    random.Random(0).shuffle(sizes)
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda size: server.echo("echo", body(size)), sizes))
    assert answers == list(map(body, sizes))
    assert server.shares("echo")
    parts = {"a": ("a", body(50_000)), "b": ("b", body(400_000))}
    answer = server.request("POST", "/predictions/echo", files=parts)
    assert answer.content == body(50_000) + body(400_000)


def test_a_worker_that_dies_leaves_no_memory_behind(server: Server) -> None:
    for _ in range(3):
        server.warm_up("echo")
        before = server.worker("echo")
        held = len(server.memory())
        assert server.predict("echo", b"kill" + body(300_000)).status_code == 507  # as everything that was killed
        eventually(lambda: server.worker("echo") != before)  # noqa: B023
        assert len(server.memory()) < held
        assert server.echo("echo", body(300_000)) == body(300_000)


def test_a_batch_that_a_dead_worker_has_not_read_is_served_by_the_next(server: Server) -> None:
    server.warm_up("echo")
    pid = server.worker("echo")
    os.kill(pid, signal.SIGSTOP)
    sent = body(777_777)
    with ThreadPoolExecutor(1) as client:
        answer = client.submit(server.echo, "echo", sent)
        eventually(lambda: sent[:64] in server.beginnings())
        os.kill(pid, signal.SIGKILL)
        assert answer.result(60) == sent
    eventually(lambda: server.worker("echo") != pid)


def test_a_handler_that_spoils_the_memory_harms_nobody_else(server: Server) -> None:
    for _ in range(2):
        for size in (100_000, 2_000_000, 100, 3_000_000):
            assert server.echo("harmful", body(size)) == body(size)
            assert server.echo("echo", body(size)) == body(size)
    assert server.shares("harmful")


def test_a_worker_that_cannot_share_is_served_by_the_socket(server: Server) -> None:
    before = len(server.memory())
    server.warm_up("apart")
    server.warm_up("apart")
    server.says("Large bodies come through the socket: OSError: no such thing here")
    assert not server.shares("apart")
    assert len(server.memory()) == before
