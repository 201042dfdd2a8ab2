"""Clients that stop waiting, and what they are told, on a started server with real archives."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.archives import ECHO, pack
from harness.server import ServerProcess, eventually

# Waits until a file of the body's name appears, or until the client is gone; writes down what it was given and how
# it ended. A body `ok` is answered at once.
WAITING = """
import os
import time

def handle(data, context):
    if data is None:
        return None
    names = [bytes(row["body"]).decode() for row in data]
    for name in names:
        open(name + ".started", "w").close()
    end = time.monotonic() + 30
    while time.monotonic() < end and not all(name == "ok" or os.path.exists(name + ".go") for name in names):
        if all(context.cancelled):
            for name in names:
                open(name + ".cancelled", "w").close()
            break
        time.sleep(0.01)
    return names
"""


class Place:
    """Files by which a test and its handler talk: the model directory."""

    def __init__(self, server: ServerProcess) -> None:
        self._models = server.temp / "models"

    def wait_for(self, name: str) -> None:
        eventually(lambda: list(self._models.glob(f"*/{name}")))

    def has(self, name: str) -> bool:
        return bool(list(self._models.glob(f"*/{name}")))

    def put(self, name: str) -> None:
        (model,) = self._models.iterdir()
        (model / name).touch()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path) as started:
        yield started


def test_a_request_is_answered_at_the_deadline_of_its_model(server: ServerProcess) -> None:
    pack(server.store, "m", WAITING, config="clientTimeoutInMills: 1500")
    server.register("m.mar")
    (worker,) = server.ready_workers("m")
    place = Place(server)
    with ThreadPoolExecutor(2) as clients:
        running = clients.submit(server.predict, "m", b"slow")
        place.wait_for("slow.started")
        waiting = clients.submit(server.predict, "m", b"never", headers={"X-Request-Timeout-Ms": "200"})
        answers = [running.result(), waiting.result()]
    for answer, limit in zip(answers, (1500, 200), strict=True):
        assert answer.status_code == 408
        assert answer.headers["connection"] == "close"
        error = answer.json()
        assert (error["code"], error["type"]) == (408, "RequestTimeoutException")
        assert error["message"] == f"Inference request timed out after {limit} ms."
        assert error["cause"]["reason"] == "deadline passed"
    assert "with worker W-9000-m_1.0" in answers[0].json()["cause"]["detail"]
    assert "waiting in the queue" in answers[1].json()["cause"]["detail"]
    place.wait_for("slow.cancelled")
    assert server.predict("m", b"ok").text == "ok"
    assert not place.has("never.started"), "work whose client has gone is not begun"
    assert [worker["pid"]] == [each["pid"] for each in server.ready_workers("m")]
    waited, ran = answers[1].headers["x-request-id"], answers[0].headers["x-request-id"]
    server.logs(
        "ts_log.log",
        f"Drop inference request {waited} due to client timeout",
        f"Drop response for inference request {ran} due to client timeout",
    )


def test_a_client_says_how_long_it_waits(server: ServerProcess) -> None:
    pack(server.store, "m", WAITING)
    server.register("m.mar")
    answer = server.predict("m", b"slow", headers={"X-Request-Timeout-Ms": "300"})
    assert answer.status_code == 408
    assert answer.json()["message"] == "Inference request timed out after 300 ms."
    Place(server).wait_for("slow.cancelled")
    assert server.predict("m", b"ok", headers={"x-request-timeout-ms": "30000"}).text == "ok"
    for nonsense in ("0", "-5", "1.5", "soon", "", "9" * 30):
        refused = server.predict("m", b"ok", headers={"X-Request-Timeout-Ms": nonsense})
        assert refused.status_code == 400
        assert "X-Request-Timeout-Ms must be a positive number of milliseconds" in refused.json()["message"]


def test_a_client_that_leaves_frees_its_place(server: ServerProcess) -> None:
    pack(server.store, "m", WAITING, config="jobQueueSize: 1")
    server.register("m.mar")
    place = Place(server)
    with ThreadPoolExecutor(1) as clients:
        with leaving_client(server, b"first"):
            place.wait_for("first.started")
            with leaving_client(server, b"second"):
                eventually(lambda: server.describe("m")["jobQueueStatus"]["pendingRequests"] == 1)
                assert server.predict("m", b"third").status_code == 503
            eventually(lambda: server.describe("m")["jobQueueStatus"]["pendingRequests"] == 0)
            waiting = clients.submit(server.predict, "m", b"ok")
            eventually(lambda: server.describe("m")["jobQueueStatus"]["pendingRequests"] == 1)
        place.wait_for("first.cancelled")
        assert waiting.result().text == "ok"
    assert not place.has("second.started")


def leaving_client(server: ServerProcess, body: bytes) -> socket.socket:
    """A client that has sent its request; leaving the context is leaving the server."""
    host, _, port = server.url().removeprefix("http://").partition(":")
    client = socket.create_connection((host, int(port)))
    client.sendall(b"POST /predictions/m HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    return client


def test_with_tickets_a_busy_model_refuses(server: ServerProcess) -> None:
    pack(server.store, "m", WAITING, config="useJobTicket: true")
    server.register("m.mar", workers=2)
    place = Place(server)
    with ThreadPoolExecutor(2) as clients:
        running = [clients.submit(server.predict, "m", name) for name in (b"a", b"b")]
        place.wait_for("a.started")
        place.wait_for("b.started")
        refused = server.predict("m", b"c")
        assert refused.status_code == 503
        assert refused.json()["type"] == "ServiceUnavailableException"
        assert refused.json()["cause"] == {"reason": "no idle worker", "detail": "no worker is idle (useJobTicket)"}
        place.put("a.go")
        place.put("b.go")
        assert [call.result().text for call in running] == ["a", "b"]
    assert server.predict("m", b"ok").text == "ok"
    server.logs("ts_log.log", "There are no job tickets available")


def test_a_worker_is_replaced_after_its_share_of_requests(server: ServerProcess) -> None:
    pack(server.store, "m", ECHO, config="maxRequestsPerWorker: 10")
    server.register("m.mar", workers=2)
    pids = {worker["pid"] for worker in server.ready_workers("m")}
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda number: server.predict("m", b"%d" % number), range(60)))
    assert [answer.text for answer in answers] == [str(number) for number in range(60)]
    # One is replaced after the other, and a worker is looked at when it has answered.
    eventually(
        lambda: server.predict("m").is_success and not pids & {worker["pid"] for worker in server.ready_workers("m")}
    )
    eventually(lambda: len(server.ready_workers("m")) == 2)
    assert "Auto recovery" not in server.logs("ts_log.log", r"is recycled: served 10 requests \(limit 10\)")


HOARDING = """
hoard = []

def handle(data, context):
    if data is None:
        return None
    hoard.append(bytearray(b"x") * (64 << 20))
    return [str(len(hoard))] * len(data)
"""


def test_a_worker_that_grows_is_replaced(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, config={"max_worker_memory_mb": 400}) as server:
        pack(server.store, "m", HOARDING)
        server.register("m.mar")
        (worker,) = server.ready_workers("m")
        assert worker["memoryUsage"] > 10 << 20, "resident bytes"
        eventually(lambda: server.predict("m").text == "1" and "is recycled: holds" in server.log("ts_log.log"))
        eventually(lambda: [fresh["pid"] for fresh in server.ready_workers("m")] not in ([], [worker["pid"]]))


def test_a_request_over_the_bytes_of_the_queue_is_refused(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, config={"job_queue_bytes": 1000}) as server:
        pack(server.store, "m", WAITING)
        server.register("m.mar")
        place = Place(server)
        with ThreadPoolExecutor(2) as clients:
            running = clients.submit(server.predict, "m", b"a")
            place.wait_for("a.started")
            waiting = clients.submit(server.predict, "m", b"ok")
            eventually(lambda: server.describe("m")["jobQueueStatus"]["pendingRequests"] == 1)
            refused = server.predict("m", b"x" * 2000)
            assert refused.status_code == 503
            assert refused.json()["cause"]["reason"] == "queue full"
            place.put("a.go")
            assert [running.result().text, waiting.result().text] == ["a", "ok"]
