"""Predictions and explanations over HTTP."""

from __future__ import annotations

import asyncio
import re

import pytest
from rest_doubles import MemoryEngine, Service, read_responses, settle, streamed

from modelserver.engine.job import Job, Overrun
from modelserver.errors import ServiceUnavailable, WorkerError
from modelserver.telemetry.records import ENDED
from modelserver.wire.frames import EXPLAIN, PREDICT, Reply


def service() -> Service:
    return Service(MemoryEngine("m", "\u00e9"))


def test_the_job_that_a_request_becomes() -> None:
    here = service()
    response = here.request("POST", "/predictions/m?x=1", b'{"a": 1}', "Content-Type: application/json; charset=x")
    (job,) = here.engine.jobs
    assert (job.model, job.label, job.kind, job.size) == ("m", "default", PREDICT, 8)
    assert here.engine.asked_versions == [None]
    assert job.request.id == response.headers["x-request-id"]
    assert [(part.name, part.mime, part.value) for part in job.request.parts] == [
        ("body", "application/json", b'{"a": 1}')
    ]
    assert job.request.headers == [
        (b"Host", b"h"),
        (b"Content-Type", b"application/json; charset=x"),
        (b"Content-Length", b"8"),
    ]
    assert job.request.extra == {"explain": "False", "url_path": ""}
    assert job.created > 0


@pytest.mark.parametrize(
    ("target", "model", "version", "url_path"),
    [
        ("/predictions/m/", "m", None, ""),
        ("/predictions/m/1.0", "m", "1.0", ""),
        ("/predictions/m/1.0/v1/chat/completions/", "m", "1.0", "v1/chat/completions"),
        ("/predictions/m/1.0//a", "m", "1.0", "/a"),
        ("/predictions/m%2F1.0/%61+b", "m", "1.0", "a+b"),
        ("/predictions/%C3%A9", "\u00e9", None, ""),
    ],
)
def test_what_the_path_selects(target: str, model: str, version: str | None, url_path: str) -> None:
    here = service()
    assert here.request("GET", target).status == 200
    (job,) = here.engine.jobs
    assert (job.model, here.engine.asked_versions) == (model, [version])
    assert job.label == (version or "default")
    assert job.request.extra["url_path"] == url_path


def test_explanations() -> None:
    here = service()
    here.request("POST", "/explanations/m/1.0/a", b"x", "explain: False")
    (job,) = here.engine.jobs
    assert job.kind == EXPLAIN
    assert job.request.extra == {"explain": "True", "url_path": "a"}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "PURGE"])
def test_any_method_predicts(method: str) -> None:
    assert service().request(method, "/predictions/m").body == b"ok"


@pytest.mark.parametrize(
    ("target", "type_", "message"),
    [
        ("/predictions", "ResourceNotFoundException", None),
        ("/predictions/", "ResourceNotFoundException", None),
        ("/explanations", "ResourceNotFoundException", None),
        ("//ping", "ResourceNotFoundException", None),
        ("/predictions/nope", "ModelNotFoundException", "Model not found: nope"),
        ("/predictions//x", "ModelNotFoundException", "Model not found: "),
        (
            "/predictions/m/2.0",
            "ModelVersionNotFoundException",
            "Model version: 2.0 does not exist for model: m",
        ),
        ("/predictions/m//x", "ModelVersionNotFoundException", "Model version:  does not exist for model: m"),
    ],
)
def test_not_found(target: str, type_: str, message: str | None) -> None:
    here = service()
    response = here.request("GET", target)
    assert response.status == 404
    assert response.json == {
        "code": 404,
        "type": type_,
        "message": message or "Requested resource is not found, please refer to API document.",
    }
    assert response.headers["connection"] == "close"
    (record,) = here.telemetry.records
    assert (record.status, record.model, record.label) == (404, "", "")


def test_a_bad_escape_is_a_bad_request() -> None:
    response = service().request("GET", "/predictions/%zz")
    assert (response.status, response.json["type"]) == (400, "BadRequestException")
    assert response.json["message"] == "invalid hex byte 'zz' at index 14 of '/predictions/%zz'"


def test_the_query_is_not_even_decoded() -> None:
    assert service().request("GET", "/predictions/m?a=%zz").status == 200


def test_a_length_is_added_where_the_client_sent_none() -> None:
    here = service()

    async def talk() -> None:
        connection = here.connect()
        await connection.feed(b"GET /predictions/m HTTP/1.1\r\nA: b\r\n\r\n")
        head = b"POST /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        await connection.feed(head + b"2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n")

    asyncio.run(talk())
    get, post = here.engine.jobs
    assert get.request.headers == [(b"A", b"b"), (b"content-length", b"0")]
    assert get.request.parts[0].value == b""
    assert post.request.headers == [(b"content-length", b"3")]
    assert post.request.parts[0].value == b"abc"


def test_a_bad_form_is_refused_before_the_engine_sees_it() -> None:
    here = service()
    response = here.request("POST", "/predictions/m", b"a=%zz", "Content-Type: application/x-www-form-urlencoded")
    assert (response.status, response.json["type"]) == (400, "BadRequestException")
    assert here.engine.jobs == []


def test_the_reply_and_its_headers() -> None:
    here = service()
    here.engine.answer = lambda job: Reply(
        0,
        b"a,b",
        201,
        "Made",
        [
            ("content-type", "text/csv; charset=utf-8"),
            ("X-Own", "caf\u00e9"),
            ("X-Wide", "\u20ac"),
            ("X-Request-Id", "mine"),
            ("cache-control", "public"),
            ("Pragma", "x"),
            ("EXPIRES", "x"),
            ("Content-Length", "7"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "close"),
        ],
    )
    response = here.request("POST", "/predictions/m", b"x")
    assert (response.status, response.body) == (201, b"a,b")
    assert response.names == [
        "content-type",
        "X-Own",
        "X-Wide",
        "x-request-id",
        "Pragma",
        "Cache-Control",
        "Expires",
        "content-length",
        "connection",
    ]
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["x-own"] == "caf\u00e9"
    assert response.headers["x-wide"].encode("latin-1").decode() == "\u20ac"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", response.headers["x-request-id"])
    assert (response.headers["pragma"], response.headers["connection"]) == ("no-cache", "keep-alive")


def test_no_content_type_unless_the_handler_sets_one() -> None:
    assert "content-type" not in service().request("GET", "/predictions/m").headers


@pytest.mark.parametrize("header", [("X-Bad", "a\r\nX-Evil: 1"), ("X Bad", "a"), ("", "a"), ("X-Bad", "\x00")])
def test_a_header_that_http_cannot_carry_is_an_error_of_the_handler(header: tuple[str, str]) -> None:
    here = service()
    here.engine.answer = lambda job: Reply(0, b"ok", headers=[header])
    response = here.request("GET", "/predictions/m")
    assert (response.status, response.json["type"]) == (500, "InternalServerException")
    assert "invalid response header" in response.json["message"]
    assert "x-evil" not in response.headers


@pytest.mark.parametrize(
    ("given", "sent"), [(200, 200), (404, 404), (599, 599), (600, 500), (999, 500), (99, 500), (0, 500), (100, 500)]
)
def test_the_handlers_status(given: int, sent: int) -> None:
    here = service()
    here.engine.answer = lambda job: Reply(0, b"body stays", given)
    response = here.request("GET", "/predictions/m")
    assert (response.status, response.body) == (sent, b"body stays")
    assert response.headers["connection"] == ("close" if sent >= 400 else "keep-alive")


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("pieces", [(), (b"dropped", b"too")], ids=["whole", "in pieces"])
@pytest.mark.parametrize(("status", "lengths"), [(204, []), (205, [b"0"]), (304, [b"7"])])
def test_a_status_without_body(status: int, lengths: list[bytes], pieces: tuple[bytes, ...], version: bytes) -> None:
    """What follows on the connection is the next response."""
    here = service()

    def reply(job: Job) -> Reply:
        if pieces:
            streamed(job, *pieces).end()
        return Reply(0, b"dropped", status)

    here.engine.answer = reply

    async def talk() -> bytes:
        request = b"GET /predictions/m HTTP/%b\r\nConnection: keep-alive\r\n\r\n" % version
        return await here.connect().feed(request, b"GET /ping HTTP/1.1\r\n\r\n")

    head, _, rest = asyncio.run(talk()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"transfer-encoding" not in head
    assert re.findall(rb"content-length: (\d+)", head) == ([] if pieces and status == 304 else lengths)


def test_a_failed_job() -> None:
    here = service()
    here.engine.answer = lambda job: WorkerError(503, "Prediction failed")
    response = here.request("GET", "/predictions/m")
    assert response.json == {"code": 503, "type": "InternalServerException", "message": "Prediction failed"}
    (record,) = here.telemetry.records
    assert (record.status, record.model, record.label, record.ok) == (503, "m", "default", False)


def test_a_refused_job_counts_for_its_model() -> None:
    here = service()
    here.engine.refusal = ServiceUnavailable("no worker")
    response = here.request("GET", "/predictions/m/1.0")
    assert response.json == {"code": 503, "type": "ServiceUnavailableException", "message": "no worker"}
    (record,) = here.telemetry.records
    assert (record.status, record.model, record.label, record.worker) == (503, "m", "1.0", "")


def test_what_a_request_leaves_behind() -> None:
    here = service()
    response = here.request("POST", "/predictions/m/1.0?q=%41", b"abc")
    (record,) = here.telemetry.records
    assert (record.remote, record.method, record.target, record.version) == (
        "/10.0.0.1:41008",
        "POST",
        "/predictions/m/1.0?q=%41",
        "HTTP/1.1",
    )
    assert (record.status, record.model, record.label, record.ok) == (200, "m", "1.0", True)
    assert (record.worker, record.sent, record.replied) == ("W-9000-m_1.0", 1.0, 2.0)
    assert record.request_id == response.headers["x-request-id"]
    assert 0 < record.received <= record.responded


def test_an_unexpected_error_is_logged_and_answered() -> None:
    here = service()

    def broken(job: Job) -> Reply:
        raise ZeroDivisionError("oops")

    here.engine.answer = broken
    response = here.request("GET", "/predictions/m")
    assert response.json == {"code": 500, "type": "InternalServerException", "message": "ZeroDivisionError: oops"}
    assert len(here.telemetry.lines) == 1
    assert "Traceback" in here.telemetry.lines[0]


class TestStreams:
    REQUEST = b"GET /predictions/m HTTP/1.1\r\n\r\n"

    def service(self, *pieces: bytes, status: int = 200) -> Service:
        here = service()

        def answer(job: Job) -> Reply:
            streamed(job, *pieces)
            return Reply(0, b"c0 ", status, headers=[("content-type", "text/plain"), ("TS_Stream_Next", "no")])

        here.engine.answer = answer
        return here

    def test_each_piece_is_a_chunk_sent_at_once(self) -> None:
        here = self.service(b"c1 ")

        async def talk() -> None:
            connection = here.connect()
            written = await connection.feed(self.REQUEST)
            head, _, body = written.partition(b"\r\n\r\n")
            assert body == b"3\r\nc0 \r\n3\r\nc1 \r\n"
            assert b"\r\nts_stream_next: true\r\n" in head
            assert b"\r\ncontent-type: text/plain\r\n" in head
            assert b"\r\ntransfer-encoding: chunked\r\n" in head
            assert b"content-length" not in head
            chunks = here.engine.jobs[0].chunks
            assert chunks is not None
            assert [(record.status, record.ok) for record in here.telemetry.records] == [(200, False)], "told at once"
            chunks.put(b"last")
            chunks.end()
            await settle()
            (response,) = read_responses(connection.written)
            assert response.body == b"c0 c1 last"
            assert not connection.transport.closed

        asyncio.run(talk())
        assert [(record.status, record.ok) for record in here.telemetry.records] == [(200, False), (ENDED, True)]

    def test_an_empty_piece_does_not_end_the_stream(self) -> None:
        here = self.service(b"", b"x", b"")

        async def talk() -> None:
            connection = here.connect()
            written = await connection.feed(self.REQUEST)
            assert written.endswith(b"3\r\nc0 \r\n1\r\nx\r\n")

        asyncio.run(talk())

    @pytest.mark.parametrize("error", [WorkerError(500, "Worker died."), Overrun("slow")])
    def test_a_broken_stream_is_cut_without_its_terminator(self, error: WorkerError | Overrun) -> None:
        here = self.service()

        async def talk() -> None:
            connection = here.connect()
            await connection.feed(self.REQUEST)
            chunks = here.engine.jobs[0].chunks
            assert chunks is not None
            chunks.fail(error)
            await settle()
            assert connection.written.endswith(b"3\r\nc0 \r\n")
            assert connection.transport.closed
            assert not connection.state.tasks

        asyncio.run(talk())
        assert [(record.status, record.ok) for record in here.telemetry.records] == [(200, False), (ENDED, False)]

    def test_a_client_that_stopped_reading_is_aborted(self) -> None:
        here = self.service()

        async def talk() -> None:
            connection = here.connect()
            await connection.feed(self.REQUEST)
            chunks = here.engine.jobs[0].chunks
            assert chunks is not None
            connection.protocol.pause_writing()
            chunks.fail(Overrun("slow"))
            await settle()
            assert connection.transport.aborted

        asyncio.run(talk())

    def test_a_client_that_leaves_ends_the_stream(self) -> None:
        here = self.service()

        async def talk() -> None:
            connection = here.connect()
            await connection.feed(self.REQUEST)
            await connection.leave()
            assert here.engine.cancelled == here.engine.jobs
            assert not connection.state.tasks

        asyncio.run(talk())
        assert [(record.status, record.ok) for record in here.telemetry.records] == [(200, False), (ENDED, False)]

    def test_http_1_0_gets_the_bare_pieces_and_a_close(self) -> None:
        here = self.service(b"c1")

        async def talk() -> None:
            connection = here.connect()
            await connection.feed(b"GET /predictions/m HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            chunks = here.engine.jobs[0].chunks
            assert chunks is not None
            chunks.end()
            await settle()
            head, _, body = connection.written.partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head
            assert head.endswith(b"connection: close")
            assert body == b"c0 c1"
            assert connection.transport.closed

        asyncio.run(talk())
