"""What clients see while a server serves: batches, streams, clients that leave, old clients, logs and metrics."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from harness.archives import NOOP, pack
from harness.server import ServerProcess, eventually
from harness.system import needs

BATCHES = """
import os
def handle(data, context):
    if data is not None:
        return [f"{len(data)} {os.getpid()}" for _ in data]
"""

STREAM = """
import time
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    for n in range(3):
        send_intermediate_predict_response([f"c{n} "], context.request_ids, "ok", 200, context)
        time.sleep(0.05)
    if data[0]["body"] == b"break":
        raise ValueError("midway")
    return ["last"]
"""

WATCHFUL = """
import pathlib, time
def handle(data, context):
    if data is None:
        return None
    if data[0]["body"] == b"quick":
        return [pathlib.Path("seen").read_text() if pathlib.Path("seen").exists() else ""]
    pathlib.Path("begun").write_text("")
    end = time.monotonic() + 20
    while time.monotonic() < end and not context.cancelled[0]:
        time.sleep(0.02)
    pathlib.Path("seen").write_text("cancelled" if time.monotonic() < end else "not told")
    return ["late"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("serving"), config={"metrics_mode": "prometheus"}) as running:
        for name, source in {"noop": NOOP, "batches": BATCHES, "stream": STREAM, "watchful": WATCHFUL}.items():
            pack(running.store, name, source)
        assert running.register("noop.mar").status_code == 200
        assert running.register("stream.mar").status_code == 200
        assert running.register("watchful.mar").status_code == 200
        assert running.register("batches.mar", workers=1, batch_size=4, max_batch_delay=400).status_code == 200
        patient = {"model_name": "patient", "batch_size": 4, "max_batch_delay": 600_000}
        assert running.register("batches.mar", workers=2, **patient).status_code == 200
        yield running


def test_simultaneous_requests_share_a_batch(server: ServerProcess) -> None:
    with ThreadPoolExecutor(4) as clients:
        answers = [call.text for call in clients.map(lambda _: server.predict("patient"), range(4))]
    assert {answer.split()[0] for answer in answers} == {"4"}
    assert len(set(answers)) == 1, "one batch, one worker"


def test_a_lonely_request_waits_for_the_batch_delay_and_goes_alone(server: ServerProcess) -> None:
    begin = time.monotonic()
    assert server.predict("batches").text.startswith("1 ")
    assert time.monotonic() - begin >= 0.4


def test_a_stream_arrives_piece_by_piece(server: ServerProcess) -> None:
    with httpx.stream("POST", server.url() + "/predictions/stream", content=b"go") as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.headers["ts_stream_next"] == "true"
        assert "content-length" not in answer.headers
        assert list(answer.iter_raw()) == [b"c0 ", b"c1 ", b"c2 ", b"last"]


def test_a_stream_that_fails_is_cut_without_its_end(server: ServerProcess) -> None:
    received = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("POST", server.url() + "/predictions/stream", content=b"break") as answer,
    ):
        for piece in answer.iter_raw():
            received += piece
    assert received == b"c0 c1 c2 "
    assert server.predict("stream", b"go").text == "c0 c1 c2 last"


def test_an_http_1_0_client_gets_a_stream_without_chunks(server: ServerProcess) -> None:
    with connect(server) as client:
        client.sendall(b"POST /predictions/stream HTTP/1.0\r\nContent-Length: 2\r\n\r\ngo")
        answer = read_all(client)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == b"c0 c1 c2 last"


def connect(server: ServerProcess) -> socket.socket:
    url = httpx.URL(server.url())
    assert url.port is not None
    return socket.create_connection((url.host, url.port), timeout=60)


def read_all(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(65536):
        received += data
    return received


def test_a_client_that_leaves_tells_the_handler(server: ServerProcess) -> None:
    with connect(server) as client:
        client.sendall(b"POST /predictions/watchful HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nwait")
        eventually(lambda: list((server.temp / "models").glob("*/begun")))
    assert server.predict("watchful", b"quick").text == "cancelled"


def test_http_1_0_keep_alive(server: ServerProcess) -> None:
    with connect(server) as client:
        for _ in range(3):
            client.sendall(b"GET /predictions/noop HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = b""
            while not answer.endswith(b"ok"):
                answer += client.recv(65536)
            assert b"connection: keep-alive" in answer.lower()


@needs("ab")
def test_ab_keeps_its_connections(server: ServerProcess) -> None:
    command = ["ab", "-k", "-n", "200", "-c", "10", server.url() + "/predictions/noop"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"Keep-Alive requests:\s+200\b", report), report
    assert re.search(r"Failed requests:\s+0\b", report), report


@needs("curl")
def test_curl_puts_a_file(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"x" * 5000)
    command = ["curl", "-sS", "-w", " %{http_code}", server.url() + "/predictions/noop", "-T", str(tmp_path / "body")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "ok 200"


def test_an_endless_head_costs_no_memory(server: ServerProcess) -> None:
    frontend = server.tree()[0]
    before = frontend.memory_info().rss
    with connect(server) as client:
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n")
        end = time.monotonic() + 30
        with pytest.raises(OSError):  # the server answers, discards a while, and closes: a client cannot go on for ever
            while time.monotonic() < end:
                client.sendall(b"x-header: %b\r\n" % (b"v" * 4000))
    assert frontend.memory_info().rss - before < 20 << 20
    assert server.request("GET", "/ping").status_code == 200


def test_pipelined_requests_are_answered_in_order(server: ServerProcess) -> None:
    with connect(server) as client:
        client.sendall(b"GET /predictions/noop HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
        client.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_all(client)
    assert answer.count(b"HTTP/1.1 200") == 5
    assert answer.count(b"HTTP/1.1 404") == 1
    assert len(set(re.findall(rb"x-request-id: (\S+)", answer))) == 6


def test_logs_and_metrics_of_requests(server: ServerProcess) -> None:
    model = "counted"
    pack(server.store, model, NOOP)
    server.register(f"{model}.mar")
    for _ in range(3):
        server.predict(model)
    server.predict(f"{model}/1.0")
    server.predict(f"{model}/9.9")

    def sample(name: str, version: str) -> float | None:
        text = server.request("GET", "/metrics", "Metrics").text
        found = re.search(
            rf'^{name}{{model_name="{model}",model_version="{version}",hostname="[^"]+",}} (\S+)$', text, re.M
        )
        return float(found[1]) if found else None

    assert sample("ts_inference_requests_total", "default") == 3.0
    assert sample("ts_inference_requests_total", "1.0") == 1.0
    assert sample("ts_inference_requests_total", "9.9") is None
    latency, queue = (sample(f"ts_{kind}_latency_microseconds", "default") for kind in ("inference", "queue"))
    assert latency is not None and queue is not None and 0 < queue < latency

    line = rf'^\S+ - /127\.0\.0\.1:\d+ "POST /predictions/{model} HTTP/1\.1" 200 \d+$'
    eventually(lambda: len(re.findall(line, server.log("access_log.log"), re.M)) == 3)
    missed = rf'"POST /predictions/{model}/9\.9 HTTP/1\.1" 404 \d+$'
    eventually(lambda: re.search(missed, server.log("access_log.log"), re.M))
    name = r"W-\d+-counted_1\.0"
    eventually(lambda: re.search(rf"\[INFO \] {name} ACCESS_LOG - ", server.output))
    assert re.search(rf"\[DEBUG\] {name} org\.pytorch\.serve\.wlm\.WorkerThread - {name} State change", server.output)


def test_what_a_handler_prints_is_in_the_model_log(server: ServerProcess) -> None:
    talkative = """
    import logging, sys
    def handle(data, context):
        if data is not None:
            print("to stdout\\nin two lines")
            print("to stderr", file=sys.stderr)
            logging.getLogger(__name__).warning("logged")
            logging.getLogger(__name__).debug("invisible")
            return ["ok"]
    """
    pack(server.store, "talkative", talkative)
    server.register("talkative.mar")
    server.predict("talkative")
    eventually(lambda: "to stderr" in server.log("model_log.log") and "logged" in server.log("model_log.log"))
    log = server.log("model_log.log")
    worker = r"W-\d+-talkative_1\.0"
    for level, stream, line in [
        ("INFO ", "stdout", "to stdout"),
        ("INFO ", "stdout", "in two lines"),
        ("WARN ", "stderr", "to stderr"),
        ("INFO ", "stdout", "logged"),
    ]:
        assert re.search(rf"\[{level}\] {worker}-{stream} MODEL_LOG - {line}$", log, re.M), (line, log)
    assert "invisible" not in log
