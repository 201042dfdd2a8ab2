"""HTTP on the wire: bytes in, bytes out, on a transport in memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest
from rest_doubles import GET, PING, Connection, converse, post, predicting, read_responses, settle

from modelserver.rest.exchange import Exchange
from modelserver.rest.protocol import ProtocolOptions
from modelserver.wire.frames import Reply


def test_a_response_byte_for_byte() -> None:
    written, connection, here = converse(PING)
    request_id = here.telemetry.records[0].request_id
    assert written.decode() == (
        "HTTP/1.1 200 OK\r\n"
        "content-type: application/json\r\n"
        f"x-request-id: {request_id}\r\n"
        "Pragma: no-cache\r\n"
        "Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
        "Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
        "content-length: 26\r\n"
        "connection: keep-alive\r\n"
        "\r\n"
        '{\n  "status": "Healthy"\n}\n'
    )
    assert not connection.transport.closed


def test_a_connection_serves_many_requests_and_each_has_its_own_id() -> None:
    written, connection, here = converse(GET, GET, GET)
    assert [response.body for response in read_responses(written)] == [b"ok"] * 3
    assert len({record.request_id for record in here.telemetry.records}) == 3
    assert not connection.transport.closed


def test_a_request_may_arrive_byte_by_byte() -> None:
    data = post(3) + b"abc"
    written, _, here = converse(*[data[i : i + 1] for i in range(len(data))])
    assert read_responses(written)[0].status == 200
    assert here.engine.jobs[0].request.parts[0].value == b"abc"


CHUNKED = b"POST /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"GET /ping HTTP/1.1\nHost: h\n\n",
        b"GET /ping HTTP/1.1\r\nHost: h\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: h\r\n\n",
        b"GET /ping HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
        CHUNKED + b"2\nab\r\n0\r\n\r\n",
        CHUNKED + b"2;x\nab\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nab\n0\r\n\r\n",
        CHUNKED + b"2\r\nab\r\n0\n\r\n",
    ],
)
def test_lines_that_do_not_end_with_cr_and_lf_are_refused(data: bytes) -> None:
    """What follows is not read as another request, which a proxy may have taken for a body."""
    written, _, here = converse(data + GET)
    (response,) = read_responses(written)
    assert (response.status, response.headers["connection"]) == (400, "close")
    assert here.engine.jobs == []


def test_header_names_reach_the_handler_as_sent() -> None:
    head = b"POST /predictions/m HTTP/1.1\r\nX-Foo: 1\r\nx-foo: 2\r\nX-Foo: \xff\r\nContent-Length: 0\r\n\r\n"
    _, _, here = converse(head)
    assert here.engine.jobs[0].request.headers == [
        (b"X-Foo", b"1"),
        (b"x-foo", b"2"),
        (b"X-Foo", b"\xff"),
        (b"Content-Length", b"0"),
    ]


def test_pipelined_requests_are_answered_in_order_and_reading_waits() -> None:
    here = predicting()
    here.engine.answer = lambda job: None

    async def talk() -> bytes:
        connection = here.connect()
        await connection.feed(GET + PING + post(5) + b"he")
        assert connection.written == b""
        assert connection.transport.paused
        first = here.engine.jobs[0]
        here.engine.answer = lambda job: Reply(0, job.request.parts[0].value)
        here.engine.settle_job(first, Reply(0, b"first"))
        await settle()
        assert not connection.transport.paused  # else the rest of the third body could never come
        return await connection.feed(b"llo")

    first, second, third = read_responses(asyncio.run(talk()))
    assert first.body == b"first"
    assert second.json == {"status": "Healthy"}
    assert third.body == b"hello"


def test_too_many_pipelined_requests_end_the_connection_after_those_accepted() -> None:
    written, connection, here = converse(GET * 10, options=ProtocolOptions(max_pipelined=3))
    responses = read_responses(written)
    assert [response.headers["connection"] for response in responses] == ["keep-alive"] * 3 + ["close"]
    assert len(here.telemetry.records) == 4
    assert connection.transport.eof


@pytest.mark.parametrize("header", [b"Connection: close\r\n", b"Connection: Close\r\n"])
def test_connection_close_is_obeyed(header: bytes) -> None:
    written, connection, _ = converse(b"GET /ping HTTP/1.1\r\n" + header + b"\r\n")
    assert read_responses(written)[0].headers["connection"] == "close"
    assert connection.transport.closed


def test_http_1_0_closes_unless_asked_to_keep_alive() -> None:
    written, connection, _ = converse(b"GET /ping HTTP/1.0\r\n\r\n")
    assert read_responses(written)[0].headers["connection"] == "close"
    assert connection.transport.closed
    keep = b"GET /ping HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
    written, connection, _ = converse(keep, keep)
    assert [response.headers["connection"] for response in read_responses(written)] == ["keep-alive"] * 2
    assert not connection.transport.closed


def test_errors_close_the_connection() -> None:
    written, connection, _ = converse(b"GET /nope HTTP/1.1\r\n\r\n")
    assert read_responses(written)[0].headers["connection"] == "close"
    assert connection.transport.closed


@pytest.mark.parametrize(
    "last", [b"GET /nope HTTP/1.1\r\n\r\n", PING.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")]
)
@pytest.mark.parametrize("rest", [GET, post(3) + b"abc", b"nonsense\r\n\r\n", b"\x01"])
def test_what_follows_the_last_request_of_a_connection_is_not_served(last: bytes, rest: bytes) -> None:
    """Though it has come in the same packet: its answer could not be sent."""
    written, connection, here = converse(last + rest)
    assert len(read_responses(written)) == len(here.telemetry.records) == 1
    assert here.engine.jobs == []
    assert connection.transport.closed


def test_head_has_the_length_but_no_body() -> None:
    written, connection, _ = converse(b"HEAD /ping HTTP/1.1\r\n\r\n", PING)
    head, ping = read_responses(written.replace(b"content-length: 26", b"content-length: 0", 1))
    assert head.body == b""
    assert ping.json == {"status": "Healthy"}
    assert not connection.transport.closed


def test_trailers_are_no_headers() -> None:
    head = b"POST /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    written, _, here = converse(head + b"1\r\na\r\n0\r\nX-Late: 1\r\n\r\n")
    assert read_responses(written)[0].status == 200
    assert here.engine.jobs[0].request.headers == [(b"content-length", b"1")]


def test_100_continue_comes_before_the_body_is_read() -> None:
    head = b"POST /predictions/m HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"

    async def talk() -> None:
        connection = predicting().connect()
        assert await connection.feed(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
        written = await connection.feed(b"abc")
        assert read_responses(written.partition(b"\r\n\r\n")[2])[0].status == 200
        assert not connection.transport.closed

    asyncio.run(talk())


def test_a_waiting_body_is_invited_when_its_turn_comes() -> None:
    head = b"POST /predictions/m HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    here = predicting()
    here.engine.answer = lambda job: None

    async def talk() -> None:
        connection = here.connect()
        assert await connection.feed(GET + head) == b""
        here.engine.settle_job(here.engine.jobs[0], Reply(0, b"first"))
        await settle()
        assert connection.written.endswith(b"firstHTTP/1.1 100 Continue\r\n\r\n")

    asyncio.run(talk())


def test_an_unread_body_is_drained_before_the_next_request() -> None:
    head = b"POST /ping HTTP/1.1\r\nContent-Length: 6\r\n\r\n"
    written, _, _ = converse(head, b"GET", b" /x", GET)
    assert [response.status for response in read_responses(written)] == [200, 200]


@pytest.mark.parametrize("split", [0, 1, 20, 95])
def test_an_upgrade_is_answered_as_http_1_1(split: int) -> None:
    data = (
        b"POST /predictions/m HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABk\r\nContent-Length: 5\r\n\r\nhello"
    )
    written, _, here = converse(data[:split], data[split:] + PING)
    assert [response.status for response in read_responses(written)] == [200, 200]
    assert here.engine.jobs[0].request.parts[0].value == b"hello"


def test_the_absolute_form_of_a_target_is_understood() -> None:
    written, _, _ = converse(b"GET http://example.org/ping?x HTTP/1.1\r\n\r\n")
    assert read_responses(written)[0].status == 200


class TestLostClient:
    def test_its_job_is_cancelled_at_once_and_recorded(self) -> None:
        here = predicting()
        here.engine.answer = lambda job: None

        async def talk() -> None:
            connection = here.connect()
            await connection.feed(GET)
            connection.protocol.connection_lost(None)
            assert here.engine.cancelled == here.engine.jobs
            await settle()
            assert not connection.state.tasks

        asyncio.run(talk())
        (record,) = here.telemetry.records
        assert (record.status, record.model, record.ok) == (0, "m", False)

    def test_behind_pipelined_requests_too(self) -> None:
        here = predicting()
        here.engine.answer = lambda job: None

        async def talk() -> None:
            connection = here.connect()
            await connection.feed(GET + GET)
            await connection.leave()
            assert here.engine.cancelled == here.engine.jobs
            assert len(here.engine.jobs) == 1
            assert not connection.state.tasks

        asyncio.run(talk())

    def test_while_it_still_sends_the_body(self) -> None:
        here = predicting()

        async def talk() -> None:
            connection = here.connect()
            await connection.feed(post(10), b"abc")
            await connection.leave()
            assert not connection.state.tasks

        asyncio.run(talk())
        assert here.engine.jobs == []
        assert here.telemetry.records == []

    def test_after_its_answer_nothing_is_cancelled(self) -> None:
        here = predicting()

        async def talk() -> None:
            connection = here.connect()
            await connection.feed(GET)
            await connection.leave()

        asyncio.run(talk())
        assert here.engine.cancelled == []


def test_shutdown_waits_for_the_answer_and_closes_idle_connections() -> None:
    here = predicting()
    here.engine.answer = lambda job: None

    async def talk() -> None:
        busy, idle = here.connect(), here.connect()
        await busy.feed(GET)
        await idle.feed(PING)
        busy.protocol.shutdown()
        idle.protocol.shutdown()
        assert idle.transport.closed
        assert not busy.transport.closed
        here.engine.settle_job(here.engine.jobs[0], Reply(0, b"late"))
        await settle()
        (response,) = read_responses(busy.written)
        assert (response.body, response.headers["connection"]) == (b"late", "close")
        assert busy.transport.closed

    asyncio.run(talk())


def test_an_answer_in_the_making_is_cut_when_the_server_waits_no_longer() -> None:
    here = predicting()

    async def endless(names: Sequence[str], *, openmetrics: bool = False) -> bytes:
        await asyncio.Event().wait()
        return b""

    here.telemetry.scrape = endless  # type: ignore[method-assign]
    here.apis = ("Metrics",)

    async def talk() -> None:
        connection = here.connect()
        await connection.feed(b"GET /metrics HTTP/1.1\r\n\r\n")
        (task,) = connection.state.tasks
        task.cancel()
        await settle()
        assert connection.transport.closed
        assert connection.written == b""

    asyncio.run(talk())


async def in_pieces(exchange: Exchange, sent: list[bytes]) -> None:
    exchange.begin(200, b"")
    for piece in (b"a", b"", b"b"):
        await exchange.proceed(piece)
        sent.append(piece)
    exchange.end()


def test_a_slow_reader_holds_up_a_stream() -> None:
    sent: list[bytes] = []

    async def talk() -> None:
        connection = Connection(lambda exchange: exchange.spawn(in_pieces(exchange, sent)))
        connection.protocol.pause_writing()
        await connection.feed(GET)
        assert sent == []
        connection.protocol.resume_writing()
        await settle()
        assert read_responses(connection.written)[0].body == b"ab"

    asyncio.run(talk())


def test_a_slow_reader_holds_up_its_next_requests() -> None:
    here = predicting()

    async def talk() -> None:
        connection = here.connect()
        connection.protocol.pause_writing()
        await connection.feed(GET * 3)
        assert len(here.engine.jobs) == 1
        connection.protocol.resume_writing()
        await settle()
        assert len(read_responses(connection.written)) == 3

    asyncio.run(talk())


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_response_without_length_is_framed_for_the_client(version: bytes) -> None:
    async def talk() -> tuple[bytes, bool]:
        connection = Connection(lambda exchange: exchange.spawn(in_pieces(exchange, [])))
        written = await connection.feed(b"GET / HTTP/%b\r\nConnection: keep-alive\r\n\r\n" % version)
        return written.partition(b"\r\n\r\n")[2], connection.transport.closed

    body, closed = asyncio.run(talk())
    if version == b"1.1":
        assert body == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
        assert not closed
    else:
        assert body == b"ab"
        assert closed


def test_a_request_leaves_nothing_for_the_garbage_collector() -> None:
    def exchanges() -> int:
        return sum(type(thing) is Exchange for thing in gc.get_objects())

    async def talk() -> None:
        connection = predicting().connect()
        await connection.feed(GET)
        gc.collect()
        gc.disable()
        try:
            before = exchanges()
            await connection.feed(*[GET] * 20)
            assert exchanges() == before
        finally:
            gc.enable()

    asyncio.run(talk())


def test_what_an_endpoint_sees_of_a_request() -> None:
    seen: list[Exchange] = []

    def app(exchange: Exchange) -> None:
        seen.append(exchange)
        exchange.respond(200, b"", b"")

    async def talk() -> None:
        await Connection(app).feed(b"PUT /a%20b?c=d HTTP/1.1\r\nX-Y: \t z \t\r\nContent-Length: 2\r\n\r\nhi")

    asyncio.run(talk())
    (exchange,) = seen
    assert (exchange.method, exchange.version, exchange.target) == ("PUT", "1.1", b"/a%20b?c=d")
    assert exchange.raw_headers == [(b"X-Y", b"z"), (b"Content-Length", b"2")]
    assert exchange.headers == [(b"x-y", b"z"), (b"content-length", b"2")]
    assert (exchange.remote, exchange.sized, exchange.body()) == ("/10.0.0.1:41008", True, b"hi")
