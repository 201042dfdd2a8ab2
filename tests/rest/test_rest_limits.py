"""What one connection may cost, and what becomes of bytes that are no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from rest_doubles import GET, PING, converse, post, predicting, read_responses, settle

from harness import clock
from modelserver.rest.protocol import ProtocolOptions
from modelserver.wire.frames import Reply

TOO_LARGE = {
    "code": 413,
    "type": "BadRequestException",
    "message": "Request body exceeds max_request_size of 10 bytes.",
}
INVALID = {"code": 400, "type": "BadRequestException", "message": "Invalid HTTP message."}


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET /ping HTTP/9.9\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /ping HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /ping HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /ping HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_cannot_be_parsed_is_answered_and_recorded(data: bytes) -> None:
    written, connection, here = converse(data)
    (response,) = read_responses(written)
    assert response.status == 400
    assert response.json == INVALID
    assert response.headers["connection"] == "close"
    assert "x-request-id" in response.headers
    (record,) = here.telemetry.records
    assert (record.method, record.status) == ("GET", 400)
    assert connection.transport.eof or connection.transport.closed


def test_a_bad_request_is_answered_after_those_before_it() -> None:
    written, _, _ = converse(PING + b"nonsense\r\n\r\n")
    assert [response.status for response in read_responses(written)] == [200, 400]


def test_a_broken_chunked_body_is_a_bad_request() -> None:
    head = b"POST /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    written, _, here = converse(head, b"3\r\nabc\r\n", b"nonsense")
    assert read_responses(written)[0].json == INVALID
    assert here.engine.jobs == []


@pytest.mark.parametrize("spelling", [b"/ping?x=%s", b"/ping/%s"])
def test_a_request_line_of_64_kib_is_accepted(spelling: bytes) -> None:
    target = spelling % (b"a" * (64 << 10))
    written, _, here = converse(b"GET " + target[:30000], target[30000:] + b" HTTP/1.1\r\n\r\n")
    assert read_responses(written)[0].status == 200
    assert here.telemetry.records[0].target == target.decode()


def test_headers_of_64_kib_are_accepted() -> None:
    lines = b"".join(b"X-%d: %s\r\n" % (i, b"v" * 1000) for i in range(66))
    written, _, _ = converse(b"GET /ping HTTP/1.1\r\n", lines[:40000], lines[40000:], b"\r\n")
    assert read_responses(written)[0].status == 200


def test_endless_headers_are_cut_off() -> None:
    flood = [b"X: y\r\n" * 100] * 50
    written, connection, _ = converse(b"GET /ping HTTP/1.1\r\n", *flood)
    assert read_responses(written)[0].json == INVALID
    assert connection.transport.eof
    assert len(connection.protocol.raw_headers) == ProtocolOptions().max_headers


@pytest.mark.parametrize("start", [b"GET /ping HTTP/1.1\r\nX: ", b"GET /"], ids=["header", "url"])
def test_an_endless_line_is_cut_off(start: bytes) -> None:
    written, connection, _ = converse(start, *[b"a" * 1000] * 20, options=ProtocolOptions(max_head=10_000))
    assert read_responses(written)[0].json == INVALID
    assert connection.transport.eof


def test_endless_trailers_are_cut_off() -> None:
    head = b"POST /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: "
    written, _, _ = converse(head, *[b"a" * 1000] * 20, options=ProtocolOptions(max_head=10_000))
    assert read_responses(written)[0].json == INVALID


class TestBodyLimit:
    OPTIONS = ProtocolOptions(max_body=10)

    def test_a_body_of_the_limit_is_accepted(self) -> None:
        written, _, here = converse(post(10) + b"0123456789", options=self.OPTIONS)
        assert read_responses(written)[0].status == 200
        assert here.engine.jobs[0].size == 10

    def test_more_is_refused_from_the_length_alone_on_any_route(self) -> None:
        for target in (b"/predictions/m", b"/ping", b"/nope"):
            written, connection, here = converse(
                b"POST %b HTTP/1.1\r\nContent-Length: 11\r\n\r\n" % target, options=self.OPTIONS
            )
            (response,) = read_responses(written)
            assert response.json == TOO_LARGE
            assert response.headers["connection"] == "close"
            assert here.telemetry.records[0].status == 413
            assert here.engine.jobs == []
            assert connection.transport.eof
            assert not connection.transport.closed

    def test_instead_of_100_continue(self) -> None:
        head = b"POST /predictions/m HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n"
        written, _, _ = converse(head, options=self.OPTIONS)
        assert [response.status for response in read_responses(written)] == [413]

    def test_a_chunked_body_is_refused_where_it_exceeds_the_limit(self) -> None:
        head = b"POST /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        written, connection, here = converse(head, *[b"4\r\nabcd\r\n"] * 5, options=self.OPTIONS)
        assert read_responses(written)[0].json == TOO_LARGE
        assert connection.transport.eof
        assert here.engine.jobs == []

    def test_an_endless_body_that_nobody_needs_ends_the_connection(self) -> None:
        head = b"POST /ping HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        written, connection, _ = converse(head, *[b"4\r\nabcd\r\n"] * 5, options=self.OPTIONS)
        assert [response.status for response in read_responses(written)] == [413]
        assert connection.transport.eof


class TestTime:
    """In virtual time: sleeping costs nothing."""

    def run(self, talk: Coroutine[Any, Any, None]) -> None:
        clock.run(talk)

    def test_an_idle_connection_stays_open(self) -> None:
        async def talk() -> None:
            connection = predicting().connect()
            await connection.feed(PING)
            await asyncio.sleep(86400)
            assert len(read_responses(await connection.feed(PING))) == 2

        self.run(talk())

    @pytest.mark.parametrize("start", [b"GET /ping HTTP/1.1\r\nX:", post(1000)], ids=["head", "body"])
    def test_a_request_that_drips_is_refused(self, start: bytes) -> None:
        async def talk() -> None:
            connection = predicting().connect()
            await connection.feed(start)
            for _ in range(70):
                await asyncio.sleep(1)
                await connection.feed(b"a")
            (response,) = read_responses(connection.written)
            assert (response.status, response.json["type"]) == (408, "RequestTimeoutException")
            assert connection.transport.eof

        self.run(talk())

    def test_a_large_body_at_a_good_rate_may_take_long(self) -> None:
        async def talk() -> None:
            connection = predicting().connect()
            await connection.feed(post(6_000_000))
            for _ in range(600):
                await asyncio.sleep(1)
                await connection.feed(b"a" * 10_000)
            assert [response.status for response in read_responses(connection.written)] == [200]

        self.run(talk())

    def test_time_spent_behind_another_request_does_not_count(self) -> None:
        here = predicting()
        here.engine.answer = lambda job: None

        async def talk() -> None:
            connection = here.connect()
            await connection.feed(GET + post(3) + b"a")
            await asyncio.sleep(600)
            assert connection.written == b""
            here.engine.answer = lambda job: Reply(0, b"second")
            here.engine.settle_job(here.engine.jobs[0], Reply(0, b"first"))
            await settle()
            written = await connection.feed(b"bc")
            assert [response.body for response in read_responses(written)] == [b"first", b"second"]

        self.run(talk())

    def test_a_client_that_sends_on_after_the_end_is_cut(self) -> None:
        async def talk() -> None:
            connection = predicting().connect(ProtocolOptions(max_body=10))
            await connection.feed(post(11), b"abc")
            assert not connection.transport.closed
            await connection.feed(b"more")
            await asyncio.sleep(3)
            assert connection.transport.aborted

        self.run(talk())
