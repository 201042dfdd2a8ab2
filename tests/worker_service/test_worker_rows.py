"""Parameters become the row that a handler receives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from modelserver.wire.frames import PREDICT, Batch, Part, Request, ToWorkerReader, encode
from modelserver.worker.rows import decoded_row, raw_row


def row_of(*parts: Part) -> dict[str, Any]:
    return decoded_row(Request("r0", list(parts), [], {}))


@pytest.mark.parametrize(
    ("mime", "value", "expected"),
    [
        ("", b"", bytearray(b"")),
        ("", b"raw", bytearray(b"raw")),
        ("application/octet-stream", b"\x00\xff", bytearray(b"\x00\xff")),
        ("image/jpeg", b"\xff\xd8", bytearray(b"\xff\xd8")),
        ("application/json", b'{"a": [1]}', {"a": [1]}),
        ("application/json", b"null", None),
        ("application/json", b"1.5", 1.5),
        ("application/json", b'"x"', "x"),
        ("application/json", b"[1, 2]", [1, 2]),
        ("application/json", "\N{SNOWMAN}".encode().join([b'"', b'"']), "\N{SNOWMAN}"),
        ("Application/JSON", b'{"a": 1}', bytearray(b'{"a": 1}')),
        ("application/vnd.api+json", b"{}", bytearray(b"{}")),
        ("text/plain", "h\xe9".encode(), "h\xe9"),
        ("text/xml", b"<a/>", "<a/>"),
        ("Text/plain", b"x", bytearray(b"x")),
    ],
)
def test_value_by_media_type(mime: str, value: bytes, expected: object) -> None:
    found = row_of(Part("body", mime, value))["body"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("mime", "value", "line"),
    [
        ("application/json", b"{bad", "Failed json decoding of input data. Forwarding encoded payload"),
        ("application/json", b"", "Failed json decoding of input data. Forwarding encoded payload"),
        ("application/json", b'"\xff"', "Failed json decoding of input data. Forwarding encoded payload"),
        ("application/json", b"[" * 100_000, "Failed json decoding of input data. Forwarding encoded payload"),
        ("text/plain", b"h\xe9", "Failed utf-8 decoding of input data. Forwarding encoded payload"),
    ],
)
def test_what_cannot_be_decoded_is_forwarded(
    mime: str, value: bytes, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        found = row_of(Part("body", mime, value))["body"]
    assert found == bytearray(value)
    assert isinstance(found, bytearray)
    assert line in caplog.messages


def test_the_last_of_a_name_wins_at_the_place_of_the_first() -> None:
    row = row_of(Part("x", "", b"1"), Part("y", "", b"2"), Part("x", "", b"3"))
    assert list(row.items()) == [("x", bytearray(b"3")), ("y", bytearray(b"2"))]


def test_no_parameters_make_an_empty_row() -> None:
    assert row_of() == {}


def test_raw_rows_decode_nothing() -> None:
    parts = [Part("a", "application/json", b"{}"), Part("b", "text/plain", b"x")]
    row = raw_row(Request("r0", parts, [], {}))
    assert row == {"a": bytearray(b"{}"), "b": bytearray(b"x")}
    assert {type(value) for value in row.values()} == {bytearray}


def test_a_body_from_the_wire_is_handed_on_without_a_copy_and_no_other_request_sees_what_becomes_of_it() -> None:
    sent = Request("r0", [Part("body", "", b"raw")], [], {})
    (batch,) = ToWorkerReader(1 << 20).feed(encode(Batch(1, PREDICT, [sent, sent])))
    assert isinstance(batch, Batch)
    first, second = batch.requests
    for row in (decoded_row(first), raw_row(first)):
        assert row["body"] is first.parts[0].value
    decoded_row(first)["body"][:] = b"changed by the handler"
    assert decoded_row(second) == {"body": bytearray(b"raw")}


@pytest.mark.parametrize("row", [decoded_row, raw_row])
def test_handlers_may_change_a_body_that_came_another_way(row: Callable[[Request], dict[str, Any]]) -> None:
    value = b"raw"
    body = row(Request("r0", [Part("body", "", value)], [], {}))["body"]
    assert type(body) is bytearray
    assert body == value
