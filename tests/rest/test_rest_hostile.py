"""Input that nobody sends by accident: whatever arrives, the client gets a 4xx or what it asked for, never a traceback.

Bytes are fed to the real protocol and the real routes; the engine behind them lives in memory and counts jobs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rest_doubles import MemoryEngine, Response, Service, converse, read_responses

from modelserver.engine.requests import Registered, Registration, Scaled
from modelserver.rest.protocol import ProtocolOptions

OPTIONS = ProtocolOptions(max_body=2000, max_head=4000, max_headers=50, max_pipelined=10)
APIS = ("Inference", "Management")

# Pieces of requests, whole and broken, from which fuzzers get further than from random bytes.
FRAGMENTS = (
    b"GET ",
    b"POST ",
    b"OPTIONS ",
    b"BREW ",
    b"/ping",
    b"/predictions/m",
    b"/models",
    b"?a=%",
    b"*",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: ",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"X: y\r\n" * 20,
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b"abc",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"FFFFFFFF\r\n",
    b"\x16\x03\x01",
)
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, -(2**31) - 1, 2**63, 10**30]),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    NUMBERS.map(str),
    st.sampled_from(["../../etc/passwd", "..", ".", "/", "%00", "a\0b", "true", "1e9", "\ud800", "٣", "'", '"', "{}"]),
)
PARAMETERS = (
    "url",
    "model_name",
    "handler",
    "runtime",
    "batch_size",
    "max_batch_delay",
    "initial_workers",
    "response_timeout",
    "startup_timeout",
    "synchronous",
    "min_worker",
    "max_worker",
    "limit",
    "next_page_token",
    "model_version",
    "customized",
    "name[]",
)


def service() -> Service:
    """Every API of one port, and an engine that does what it is told."""
    here = Service(MemoryEngine("m"), apis=APIS)
    here.engine.outcome = Registered(model="m", version="1.0", workers=0, pending=False)
    return here


def talk(here: Service, packets: Sequence[bytes]) -> list[Response]:
    """What the server answers to these packets on one connection. Fails if a response is malformed."""

    async def feed() -> bytes:
        connection = here.connect(OPTIONS)
        written = await connection.feed(*packets)
        protocol = connection.protocol
        assert len(protocol.raw_headers) <= OPTIONS.max_headers
        assert len(protocol.waiting) <= OPTIONS.max_pipelined
        await connection.leave()
        return written

    invitation = b"HTTP/1.1 100 Continue\r\n\r\n"
    return read_responses(asyncio.run(feed()).replace(invitation, b""))


def check(here: Service, responses: list[Response]) -> None:
    """Nothing went wrong inside, and nothing of the inside was shown."""
    assert [line for line in here.telemetry.lines if line.startswith("ERROR")] == []
    for response in responses:
        assert response.status < 500, response
        assert b"Traceback" not in response.body
        if response.status >= 400:
            assert response.headers["connection"] == "close"
            assert set(response.json) >= {"code", "type"}
    assert all(response.status < 400 for response in responses[:-1]), "an error ends the connection"


def request(method: str, target: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method.encode(), target), b"Host: h", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def escaped(text: str) -> bytes:
    """Every byte as a percent escape."""
    return b"".join(b"%%%02x" % byte for byte in text.encode("utf-8", "surrogatepass"))


# Bytes.


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=30)), max_size=30), st.booleans())
def test_any_bytes(pieces: list[bytes], together: bool) -> None:
    here = service()
    check(here, talk(here, [b"".join(pieces)] if together else pieces))


# A verb that the parser does not know is understood at the beginning of a packet alone.
VERBLESS = [fragment for fragment in FRAGMENTS if fragment not in (b"abc", b"*", b"BREW ")]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(VERBLESS), max_size=12), st.integers(1, 7))
def test_where_packets_end_makes_no_difference(pieces: list[bytes], size: int) -> None:
    data = b"".join(pieces)
    whole = talk(service(), [data])
    cut = talk(service(), [data[at : at + size] for at in range(0, len(data), size)])
    assert [(r.status, r.body) for r in whole] == [(r.status, r.body) for r in cut]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_request_with_one_byte_changed(data: st.DataObject) -> None:
    whole = bytearray(request("POST", b"/predictions/m?a=b", b"Content-Type: text/plain", body=b"hello"))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    here = service()
    check(here, talk(here, [bytes(whole)]))


# Framing: one request is never taken for two.


SMUGGLED = b"GET /predictions/m HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 0\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0",
        b"Content-Length: 0\r\nContent-Length: %d",
        b"Content-Length: %d\r\nContent-Length: 0",
        b"Content-Length: 0, %d",
        b"Content-Length: +0",
        b"Content-Length: 0x0",
        b"Content-Length: -1",
        b"Content-Length: 1_0",
        b"Content-Length:",
        b"Content-Length : 0",
        b"Content-Length: 0\r\n ,5",
        b"Content-Length: 99999999999999999999999999999999",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\x0bchunked",
        b"X: a\0b\r\nContent-Length: 0",
        b"X: a\rContent-Length: 0",
        b"X: a\nContent-Length: 0",
        b": a\r\nContent-Length: 0",
        b"X Y: a\r\nContent-Length: 0",
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(lines: bytes) -> None:
    if b"%d" in lines:
        lines %= len(SMUGGLED)
    here = service()
    (response,) = talk(here, [b"POST /predictions/m HTTP/1.1\r\n" + lines + b"\r\n\r\n" + SMUGGLED])
    assert (response.status, response.json["message"]) == (400, "Invalid HTTP message.")
    assert here.engine.jobs == []


@pytest.mark.parametrize("size", [b"FFFFFFFFFFFFFFFFF", b"-1", b"0x3", b"3 3", b" 3", b"", b"g", b"+3"])
def test_a_chunk_without_a_size(size: bytes) -> None:
    head = b"POST /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    here = service()
    (response,) = talk(here, [head + size + b"\r\nabc\r\n0\r\n\r\n"])
    assert response.status == 400
    assert here.engine.jobs == []


def test_chunks_of_one_byte_with_long_extensions_are_cut_off() -> None:
    head = b"POST /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    written, _, here = converse(head, *[b"1;" + b"x" * 6000] * 20, options=OPTIONS)
    assert [response.status for response in read_responses(written)] == [400]
    assert here.engine.jobs == []


# URLs.


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(["GET", "PUT", "DELETE", "OPTIONS", "PATCH"]),
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    "predictions",
                    "models",
                    "m",
                    "1.0",
                    "invoke",
                    "v1",
                    "v2",
                    "m:predict",
                    "..",
                    ".",
                    "",
                    "all",
                    "a" * 500,
                ]
            ),
            TEXTS,
        ),
        max_size=6,
    ),
    st.lists(st.tuples(st.one_of(st.sampled_from(PARAMETERS), st.text(max_size=5)), TEXTS), max_size=5),
)
@example("PUT", ["models", "m"], [("min_worker", "٣")])
@example("GET", ["models", "m", "all"], [])
def test_any_url(method: str, segments: list[str], query: list[tuple[str, str]]) -> None:
    target = b"/" + b"/".join(map(escaped, segments))
    target += b"?" + b"&".join(escaped(name) + b"=" + escaped(value) for name, value in query) if query else b""
    here = service()
    here.engine.outcome = Scaled(workers=1)
    (response,) = talk(here, [request(method, target)])
    check(here, [response])
    assert {job.model for job in here.engine.jobs} <= {"m"}


@pytest.mark.parametrize(
    "target",
    [
        b"/predictions/../models",
        b"/predictions/%2e%2e/models",
        b"/predictions/..%2fmodels",
        b"/predictions/m%00",
        b"/predictions/m/../../../etc/passwd",
        b"/models/..",
        b"/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        b"/predictions/M",
        b"/predictions/m%20",
        b"/predictions/%EF%BC%8D",
    ],
)
def test_a_name_is_compared_and_nothing_else(target: bytes) -> None:
    here = service()
    (response,) = talk(here, [request("GET", target)])
    assert response.status == 404
    assert here.engine.jobs == []


@pytest.mark.parametrize("query", [b"%", b"%4", b"%zz", b"a=%u0041", b"%00=%", b"a=1&%="])
def test_a_bad_escape_in_a_query(query: bytes) -> None:
    here = service()
    (response,) = talk(here, [request("GET", b"/models?" + query)])
    assert (response.status, response.json["type"]) == (400, "BadRequestException")


def test_the_first_of_several_values_counts() -> None:
    here = service()
    here.engine.outcome = Scaled(workers=1)
    (response,) = talk(here, [request("PUT", b"/models/m?min_worker=1&min_worker=9&synchronous=true&min_worker=x")])
    assert response.status == 200
    assert here.engine.calls == [("scale", "m", None, 1, 1, True)]


@pytest.mark.parametrize("path", [b"/invocations?model_name=m", b"/models?limit=1"])
def test_a_query_with_endless_parameters(path: bytes) -> None:
    here = service()
    (response,) = talk(here, [request("GET", path + b"&a" * 1500)])
    assert (response.status, response.json["message"]) == (400, "Request has more than 1000 fields.")


# Headers.


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"Authorization",
                    b"Content-Type",
                    b"X-Request-Timeout-Ms",
                    b"Expect",
                    b"Connection",
                    b"Upgrade",
                    b"Accept",
                    b"explain",
                    b"Host",
                    b"x-request-id",
                ]
            ),
            st.one_of(st.binary(max_size=30), TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))),
        ),
        max_size=8,
    ),
    st.sampled_from([b"/predictions/m", b"/models/m/invoke", b"/ping", b"/v2/models/m/infer"]),
)
def test_any_header_values(headers: list[tuple[bytes, bytes]], target: bytes) -> None:
    here = service()
    lines = [b"%b: %b" % header for header in headers]
    check(here, talk(here, [request("POST", target, *lines, body=b"hello")]))


@pytest.mark.parametrize("value", [b"9" * 30, b"-5", b"0", b"1e3", b"nan", b"", b"\xd9\xa3", b"5 5", b"0x5"])
def test_a_time_limit_that_is_none(value: bytes) -> None:
    here = service()
    (response,) = talk(here, [request("GET", b"/predictions/m", b"X-Request-Timeout-Ms: " + value)])
    assert response.status == 400
    assert here.engine.jobs == []


# Bodies.

BOUNDARY = b"frontier"
PARTS = (
    b'--frontier\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    b'--frontier\r\nContent-Disposition: form-data; name="b"; filename="../../x\0.txt"\r\n'
    b"Content-Type: application/json\r\n\r\n{}\r\n"
    b"--frontier--\r\n"
)
MULTIPART = b"Content-Type: multipart/form-data; boundary=frontier"


@pytest.mark.parametrize("size", range(len(PARTS)))
def test_a_multipart_body_that_ends_too_early(size: int) -> None:
    here = service()
    (response,) = talk(here, [request("POST", b"/predictions/m", MULTIPART, body=PARTS[:size])])
    check(here, [response])
    assert response.status == 200 if here.engine.jobs else 400


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    b"--frontier",
                    b"--frontier--",
                    b"--",
                    b"\r\n",
                    b"\r",
                    b"\n",
                    b'Content-Disposition: form-data; name="a"',
                    b"Content-Disposition: form-data",
                    b"Content-Disposition: form-data; name*=utf-8''%zz",
                    b'; filename="',
                    b"Content-Type: ",
                    b"Content-Transfer-Encoding: base64",
                    b"X: " + b"y" * 500,
                ]
            ),
            st.binary(max_size=20),
        ),
        max_size=20,
    )
)
def test_any_multipart_body(pieces: list[bytes]) -> None:
    here = service()
    (response,) = talk(here, [request("POST", b"/predictions/m", MULTIPART, body=b"".join(pieces)[:2000])])
    check(here, [response])


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=40), st.binary(max_size=40))
def test_any_boundary(boundary: str, body: bytes) -> None:
    here = service()
    kind = b"Content-Type: multipart/form-data; boundary=" + boundary.encode("utf-8", "surrogatepass")
    if any(byte in kind for byte in b"\r\n\0"):
        return
    check(here, talk(here, [request("POST", b"/predictions/m", kind, body=body)]))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=100))
@example(b"a=%zz")
@example(b"%")
@example(b"=&=&==")
def test_any_form(body: bytes) -> None:
    here = service()
    kind = b"Content-Type: application/x-www-form-urlencoded"
    (response,) = talk(here, [request("POST", b"/invocations?model_name=m", kind, body=body)])
    check(here, [response])


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.one_of(st.sampled_from(PARAMETERS), st.text(max_size=5)), JSON, max_size=6))
@example({"url": "a.mar", "batch_size": 10**30})
@example({"url": "a.mar", "model_name": "../../x"})
@example({"url": {"a": []}})
def test_any_json_of_a_registration(members: dict[str, object]) -> None:
    here = service()
    kind = b"Content-Type: application/json"
    (response,) = talk(here, [request("POST", b"/models", kind, body=json.dumps(members).encode())])
    check(here, [response])
    for call in here.engine.calls:
        assert isinstance(call, Registration)
        numbers = (call.batch_size, call.initial_workers, call.response_timeout, call.startup_timeout)
        assert all(number is None or -(2**31) <= number < 2**31 for number in numbers)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1900,
        b'{"a":' * 380,
        b"",
        b"null",
        b"1" * 1900,
        b'"\\ud800"',
        b"\xff",
        b"{'a'" * 400,
        b'{"url": "a.mar",}',
    ],
    ids=["deep list", "deep object", "empty", "null", "long number", "surrogate", "no text", "quotes", "comma"],
)
def test_json_that_is_none(body: bytes) -> None:
    here = service()
    (response,) = talk(here, [request("POST", b"/models", b"Content-Type: application/json", body=body)])
    assert response.status == 400
    assert here.engine.calls == []
