"""Clients that vanish: at every point of a request, ten thousand of them."""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from urllib.parse import urlsplit

import psutil
import pytest
from fault_stage import stage, unharmed

from harness.archives import pack
from harness.leaks import Census, assert_settles
from harness.server import ServerProcess, eventually

CLIENTS, AT_A_TIME = 10_000, 250
GROWTH = 32 << 20  # bytes that the frontend may keep: buffers of the allocator, not those of ten thousand clients

SLOW = """
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep(0.001)
    return ["ok"] * len(data)
"""

HEAD = b"POST /predictions/slow HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
SILENT = b""
IN_THE_HEAD = HEAD[:-7]
IN_THE_BODY = HEAD + b"Content-Length: 1000000\r\n\r\n" + bytes(20_000)
WAITING = HEAD + b"Content-Length: 4\r\n\r\nbody"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n" + bytes(2000)
PIPELINING = WAITING * 3

ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with stage(tmp_path_factory.mktemp("clients")) as running:
        pack(running.store, "slow", SLOW)
        assert running.register("slow.mar").status_code == 200
        yield running


def vanish(server: ServerProcess, count: int, texts: Sequence[bytes]) -> None:
    """So many clients connect, send one of the texts each, and leave: every second one politely."""
    address = urlsplit(server.url())
    place = (address.hostname or "", address.port or 0)
    remaining = islice(cycle(texts), count)
    while batch := list(islice(remaining, AT_A_TIME)):
        sockets = [connect(place) for _ in batch]
        for number, (client, text) in enumerate(zip(sockets, batch, strict=True)):
            say(client, text)
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        for client in sockets:
            client.close()


def connect(place: tuple[str, int]) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    if client.connect_ex(place) not in (0, errno.EINPROGRESS):
        raise AssertionError("not even a connection")
    return client


def say(client: socket.socket, text: bytes) -> None:
    """Send what the connection takes at once."""
    assert select.select([], [client], [], 60)[1]
    if text:
        client.send(text)


def resident(server: ServerProcess) -> int:
    frontend = psutil.Process(server.tree()[0].pid)
    size: int = frontend.memory_info().rss
    return size


@pytest.mark.parametrize(
    "text", [SILENT, IN_THE_HEAD, IN_THE_BODY, CHUNKED, WAITING, PIPELINING], ids=lambda text: str(len(text))
)
def test_clients_that_leave_at_one_point(server: ServerProcess, text: bytes) -> None:
    with unharmed(server):
        vanish(server, 200, [text])
        eventually(lambda: server.predict("slow").text == "ok")  # the queue may still be full of those who have left
    assert server.describe("slow")["jobQueueStatus"]["pendingRequests"] == 0


def test_ten_thousand_clients_that_leave(server: ServerProcess) -> None:
    texts = [SILENT, IN_THE_HEAD, IN_THE_BODY, WAITING]
    with unharmed(server):
        vanish(server, 4 * AT_A_TIME, texts)  # what the first ones leave in pools and caches is not theirs
    before = resident(server)
    with unharmed(server):
        vanish(server, CLIENTS, texts)
        eventually(lambda: server.predict("slow").text == "ok")
        eventually(lambda: server.describe("slow")["jobQueueStatus"]["pendingRequests"] == 0)
        eventually(lambda: resident(server) < before + GROWTH)


def test_clients_that_stay_and_say_nothing_do_not_keep_others_out(server: ServerProcess) -> None:
    address = urlsplit(server.url())
    before = Census.of(server)
    silent = [socket.create_connection((address.hostname or "", address.port or 0)) for _ in range(500)]
    try:
        assert server.predict("slow").text == "ok"
    finally:
        for client in silent:
            client.close()
    assert_settles(server, before)
