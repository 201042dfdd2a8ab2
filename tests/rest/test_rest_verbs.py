"""Verbs that no HTTP parser knows: routes say what becomes of them, not the parser."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rest_doubles import PING, Service, converse, read_responses
from rest_doubles import MemoryEngine as Engine

from modelserver.rest.verbs import begins_verb, split_strange_verb

VERBS = ["FOO", "get", "Get", "GETT", "PROPFINDER", "F-O!O", "X" * 100, "1", "PROPFIND", "SOURCE"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_prediction_by_any_verb(verb: str) -> None:
    request = f"{verb} /predictions/m HTTP/1.1\r\nX-Foo: 1\r\nContent-Length: 3\r\n\r\nabc".encode()
    written, connection, here = converse(request, PING)
    assert [response.status for response in read_responses(written)] == [200, 200]
    assert here.engine.jobs[0].request.parts[0].value == b"abc"
    assert [record.method for record in here.telemetry.records] == [verb, "GET"]
    assert not connection.transport.closed


@pytest.mark.parametrize("verb", ["FOO", "get", "GETT", "PO", "PROPFINDER"])
def test_a_verb_may_arrive_in_pieces(verb: str) -> None:
    data = f"{verb} /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode()
    for size in range(1, len(verb) + 8):
        written, _, here = converse(*[data[at : at + size] for at in range(0, len(data), size)], PING)
        assert [response.status for response in read_responses(written)] == [200, 200]
        assert here.engine.jobs[0].request.parts[0].value == b"abc"
        assert [record.method for record in here.telemetry.records] == [verb, "GET"]


def test_every_request_of_a_connection_has_its_own_verb() -> None:
    verbs = ["FOO", "GET", "BAR", "BAR", "get", "PUT"]
    written, _, here = converse(*[f"{verb} /ping HTTP/1.1\r\n\r\n".encode() for verb in verbs])
    assert [response.status for response in read_responses(written)] == [200] * 6
    assert [record.method for record in here.telemetry.records] == verbs


def test_a_known_verb_may_follow_in_the_same_packet() -> None:
    written, _, here = converse(b"FOO /ping HTTP/1.1\r\n\r\n" + PING)
    assert [response.status for response in read_responses(written)] == [200, 200]
    assert [record.method for record in here.telemetry.records] == ["FOO", "GET"]


@pytest.mark.parametrize(
    "before", [PING, b"FOO /ping HTTP/1.1\r\n\r\n", b"POST /ping HTTP/1.1\r\nContent-Length: 9\r\n\r\n"]
)
def test_where_a_request_begins_is_never_guessed(before: bytes) -> None:
    """The body of one is not taken for another: behind other bytes of a packet only known verbs are understood."""
    packets = [before[:-1], before[-1:] + b"123456789FOO /predictions/m HTTP/1.1\r\n\r\n"]
    written, _, here = converse(*packets)
    assert [response.status for response in read_responses(written)] == [200, 400]
    assert here.engine.jobs == []


def test_nothing_is_served_twice() -> None:
    """Where a packet begins with a known verb, what is wrong with it comes later."""
    written, _, here = converse(PING + PING + b"FOO /predictions/m HTTP/1.1\r\n\r\n")
    assert [response.status for response in read_responses(written)] == [200, 200, 400]
    assert here.engine.jobs == []


def test_a_body_that_looks_like_a_request() -> None:
    head = b"POST /ping HTTP/1.1\r\nContent-Length: 35\r\n\r\n"
    written, _, here = converse(head, b"FOO /predictions/m HTTP/1.1\r\n\r\n 1234FOO /ping HTTP/1.1\r\n\r\n")
    assert [response.status for response in read_responses(written)] == [200, 400]
    assert here.engine.jobs == []


@pytest.mark.parametrize(
    "beginning",
    [b"F\x01O /ping", b"F(O /ping", b"F\xc3\xa9 /ping", b" /ping", b"\t/ping", b"X" * 101 + b" /ping", b"FOO\r\n/ping"],
)
def test_what_is_no_verb_is_refused(beginning: bytes) -> None:
    request = beginning + b" HTTP/1.1\r\n\r\n"
    for size in (1, 5, len(request)):
        written, connection, here = converse(*[request[at : at + size] for at in range(0, len(request), size)])
        (response,) = read_responses(written)
        assert (response.status, response.json["message"]) == (400, "Invalid HTTP message.")
        assert [(record.method, record.status) for record in here.telemetry.records] == [("GET", 400)]
        assert connection.transport.eof


def test_another_protocol_is_declined_under_any_verb() -> None:
    request = b"FOO /ping HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    written, _, here = converse(request)
    assert [response.status for response in read_responses(written)] == [200]
    assert here.telemetry.records[0].method == "FOO"


@pytest.mark.parametrize(
    ("api", "target"), [("Management", "/models"), ("Management", "/models/m"), ("Inference", "/")]
)
def test_routes_that_look_at_the_verb_do_not_know_it(api: str, target: str) -> None:
    here = Service(Engine("m"), apis=(api,))
    for verb in ("FOO", "get", "delete"):
        assert here.request(verb, target).status == 405
    assert here.engine.calls == []


def test_a_connection_that_ends_within_a_verb() -> None:
    written, connection, here = converse(b"FO")
    assert (written, here.telemetry.records) == (b"", [])
    assert connection.protocol.owed == 0


@settings(deadline=None, max_examples=200)
@given(st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", fullmatch=True), st.integers(0, 100))
def test_a_verb_is_split_from_what_follows(verb: bytes, size: int) -> None:
    assume(verb.isdigit() or not verb.isupper())  # the parser knows none such
    whole = b"\r\n" + verb + b" /ping"
    assert split_strange_verb(whole) == (verb, b" /ping")
    assert begins_verb(verb[: size + 1])
    assert split_strange_verb(verb[: size + 1]) is None
    assert not begins_verb(whole)
