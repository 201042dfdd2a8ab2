"""Clients that count every answer: bytes in, requests and counts out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.crowd import Client, Crowd, CrowdFailed, Deserter, Load, Tally, run_crowd
from benchmarks.plan import NOOP, Deployment
from benchmarks.servers import RestServer, predict

LOAD = Load("http://127.0.0.1:8080/predictions/noop", 1, 1.0, "text/plain", "ab", "ok", copies=3)
DEPLOYMENT = Deployment(NOOP, 1)


class Wire:
    """A transport that keeps what is written, and tells the connection's end when asked to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()

    abort = close


def answer(status: int, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d " % status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def converse(script: Callable[[Crowd, Client, Wire], None], load: Load = LOAD) -> Crowd:
    """Run the script on a client whose connection is made."""

    async def run() -> Crowd:
        crowd, wire = Crowd(load), Wire()
        client = Client(crowd)
        client.connection_made(as_transport(wire))
        script(crowd, client, wire)
        return crowd

    return asyncio.run(run())


def as_transport(wire: Wire) -> Any:
    return wire


def test_request_is_whole() -> None:
    head, _, body = LOAD.request.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /predictions/noop HTTP/1.1",
        b"Host: 127.0.0.1:8080",
        b"Content-Type: text/plain",
        b"Content-Length: 6",
    ]
    assert body == b"ababab"


def test_a_good_answer_is_followed_by_the_next_request() -> None:
    def script(crowd: Crowd, client: Client, wire: Wire) -> None:
        reply = answer(200, b"ok, all of it")
        client.data_received(reply[:20])
        assert wire.written == [LOAD.request]
        client.data_received(reply[20:])
        assert wire.written == [LOAD.request] * 2
        client.data_received(reply)

    crowd = converse(script)
    assert crowd.tally.good == 2
    assert crowd.tally.slowest > 0
    assert crowd.tally.lost == 0


@pytest.mark.parametrize(
    ("status", "body", "unexplained"),
    [(500, b'{"code": 500, "cause": {}}', 0), (503, b'{"code": 503}', 1), (200, b"other", 1)],
    ids=["with a cause", "without a cause", "wrong body"],
)
def test_anything_but_a_good_answer_is_a_failure(status: int, body: bytes, unexplained: int) -> None:
    tally = converse(lambda crowd, client, wire: client.data_received(answer(status, body))).tally
    assert tally.failures == {status: 1}
    assert (tally.failed, tally.unexplained, tally.lost, tally.good) == (1, unexplained, 1, 0)


def test_a_connection_that_is_to_be_closed_is_left() -> None:
    def script(crowd: Crowd, client: Client, wire: Wire) -> None:
        client.data_received(answer(500, b"", b"Connection: close"))
        assert wire.is_closing()
        client.connection_lost(None)
        assert client.left.done()

    crowd = converse(script)
    assert crowd.tally.unanswered == 0
    assert not crowd.waiting


def test_a_connection_that_ends_early_leaves_a_request_unanswered() -> None:
    crowd = converse(lambda crowd, client, wire: client.connection_lost(None))
    assert (crowd.tally.cut, crowd.tally.unanswered, crowd.tally.lost) == (1, 1, 1)


def test_garbage_is_no_answer() -> None:
    def script(crowd: Crowd, client: Client, wire: Wire) -> None:
        client.data_received(b"ok\r\n\r\n")
        assert wire.is_closing()
        client.connection_lost(None)

    assert converse(script).tally.cut == 1


def test_patience_ends() -> None:
    def script(crowd: Crowd, client: Client, wire: Wire) -> None:
        assert client in crowd.waiting
        client.give_up_if_late(0.0)
        assert not wire.is_closing()
        client.give_up_if_late(float("inf"))
        assert wire.is_closing()
        client.connection_lost(None)

    tally = converse(script).tally
    assert (tally.given_up, tally.cut, tally.unanswered) == (1, 0, 1)


def test_nothing_is_sent_when_the_time_is_over() -> None:
    def script(crowd: Crowd, client: Client, wire: Wire) -> None:
        crowd.over = True
        client.data_received(answer(200, b"ok"))
        assert wire.is_closing()
        client.connection_lost(None)

    crowd = converse(script)
    assert (crowd.tally.good, crowd.tally.cut) == (1, 0)


def test_deserters_leave_with_half_a_request_and_with_a_whole_one() -> None:
    wires = [Wire(), Wire()]

    async def run() -> Crowd:
        crowd = Crowd(LOAD)
        for wire in wires:
            deserter = Deserter(crowd)
            deserter.connection_made(as_transport(wire))
            await wire.closed.wait()
            deserter.connection_lost(None)
        return crowd

    assert asyncio.run(run()).tally.vanished == 2
    half, whole = (b"".join(wire.written) for wire in wires)
    assert whole == LOAD.request
    assert LOAD.request.startswith(half)
    assert 0 < len(half) < len(whole)


def test_clients_that_leave_do_not_disturb_the_others(standin: RestServer) -> None:
    standin.start()
    standin.deploy(DEPLOYMENT)
    url, meanwhile = standin.url(DEPLOYMENT), []
    load = Load(url, 2, 1.0, "text/plain", "x", "ok", copies=1000, pause=0.01, vanishing=1)
    tally = run_crowd(load, lambda: meanwhile.append(predict(standin, DEPLOYMENT)))
    assert meanwhile == [True]
    assert tally.good > 0
    assert tally.vanished > 0
    assert (tally.lost, tally.refused) == (0, 0)


def test_a_process_without_a_tally_is_told() -> None:
    with pytest.raises(CrowdFailed, match="ended with 1"):
        run_crowd(replace(LOAD, url="http://127.0.0.1:none/"))


def test_sums() -> None:
    tally = Tally(failures={500: 2, 503: 1}, cut=10, given_up=20)
    assert (tally.failed, tally.unanswered, tally.lost) == (3, 30, 33)
