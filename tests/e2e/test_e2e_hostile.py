"""Clients that mean harm, at a real server: it stays up, its memory and descriptors come back, no worker notices."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import httpx
import psutil
import pytest

from harness.archives import ECHO, pack
from harness.leaks import Census, assert_settles
from harness.server import DEADLINE, ServerProcess

PREDICT = b"POST /predictions/echo HTTP/1.1\r\nHost: h\r\n"
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = {"max_request_size": 200_000}
    with ServerProcess(tmp_path_factory.mktemp("hostile"), config=config) as running:
        pack(running.store, "echo", ECHO)
        assert running.register("echo.mar").status_code == 200
        assert running.predict("echo", bytes(100_000)).status_code == 200  # from now on they share memory
        yield running


@pytest.fixture(autouse=True)
def unharmed(server: ServerProcess) -> Iterator[None]:
    """Around every test: the worker is the same, nothing is left behind, and the server still serves."""
    assert server.predict("echo", b"before").content == b"before"
    (worker,) = server.ready_workers("echo")
    before = Census.of(server)
    yield
    assert server.predict("echo", b"after").content == b"after"
    assert [other["pid"] for other in server.ready_workers("echo")] == [worker["pid"]]
    assert_settles(server, before, fields=["frontend"])
    assert "Traceback" not in server.output


def connect(server: ServerProcess) -> socket.socket:
    url = httpx.URL(server.url())
    assert url.port is not None
    return socket.create_connection((url.host, url.port), DEADLINE)


def converse(server: ServerProcess, packets: Iterable[bytes]) -> bytes:
    """Everything that the server answers; it may end the connection before the last packet is sent."""
    with connect(server) as client:
        try:
            for packet in packets:
                client.sendall(packet)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        answer = b""
        try:
            while piece := client.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00" * 1000, b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
        (PREDICT + b"Content-Length: 99999999999999999999\r\n\r\n", b"400"),
        (PREDICT + b"Content-Length: 200001\r\n\r\n", b"413"),
        (PREDICT + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n", b"400"),
        (PREDICT + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET /predictions/..%2f..%2fetc%2fpasswd HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /predictions/echo%00 HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /predictions/%zz HTTP/1.1\r\n\r\n", b"400"),
        (b"BREW /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"BREW\x01 /ping HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /invocations?" + b"&a" * 5000 + b" HTTP/1.1\r\n\r\n", b"400"),
        (
            PREDICT + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 50\r\n\r\n"
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n12',
            b"400",
        ),
    ],
)
def test_what_cannot_be_served_is_refused(server: ServerProcess, data: bytes, status: bytes) -> None:
    answer = converse(server, [data])
    assert answer.startswith(b"HTTP/1.1 " + status), answer
    assert b"Traceback" not in answer


def test_floods_of_bytes_are_not_kept(server: ServerProcess) -> None:
    assert server.process is not None
    memory = psutil.Process(server.process.pid).memory_info
    before = memory().rss
    floods = {
        "headers": [b"GET /ping HTTP/1.1\r\n", *[b"X: " + b"y" * 1000 + b"\r\n"] * 50_000],
        "one header": [b"GET /ping HTTP/1.1\r\nX: ", *[b"y" * 50_000] * 1000],
        "one line": [b"GET /", *[b"y" * 50_000] * 1000],
        "body": [PREDICT, b"Transfer-Encoding: chunked\r\n\r\n", *[b"C350\r\n" + b"y" * 50_000 + b"\r\n"] * 1000],
        "trailers": [PREDICT, b"Transfer-Encoding: chunked\r\n\r\n0\r\n", *[b"X: " + b"y" * 1000 + b"\r\n"] * 50_000],
    }
    for name, packets in floods.items():
        answer = converse(server, packets)
        assert answer == b"" or answer[9:12] in (b"400", b"413"), name  # the answer may be lost to who does not read
        assert memory().rss < before + 30 * MEGABYTE, name


def test_many_that_never_finish_their_request(server: ServerProcess) -> None:
    assert server.process is not None
    memory = psutil.Process(server.process.pid).memory_info
    before = memory().rss
    with ExitStack() as stack:
        for number in range(300):
            client = stack.enter_context(connect(server))
            client.sendall(
                (b"GET /ping HTTP/1.1\r\nX: ", PREDICT + b"Content-Length: 9\r\n\r\nab", b"", b"G")[number % 4]
            )
        assert server.predict("echo", b"meanwhile").content == b"meanwhile"
        assert memory().rss < before + 30 * MEGABYTE


def test_who_sends_requests_and_reads_no_answers_is_not_read_from(server: ServerProcess) -> None:
    assert server.process is not None
    memory = psutil.Process(server.process.pid).memory_info
    before = memory().rss
    body = b"x" * 100_000
    request = PREDICT + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with connect(server) as client:
        client.settimeout(1.0)
        with pytest.raises((TimeoutError, ConnectionError)):
            for _ in range(2000):
                client.sendall(request)
        assert server.predict("echo", b"meanwhile").content == b"meanwhile"
        assert memory().rss < before + 60 * MEGABYTE
