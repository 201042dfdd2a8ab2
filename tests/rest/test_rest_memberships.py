"""What requests of REST say of their sequence."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.engine.job import Job, Membership
from modelserver.errors import BadRequest
from modelserver.rest.memberships import Memberships, membership_of, parameters_of
from modelserver.settings.sequence_keys import SequenceKeys
from modelserver.wire.frames import INFER, INFER_EXPLAIN, PREDICT, PROTOBUF, Part, Request

Headers = dict[bytes, bytes]
READ = Memberships(SequenceKeys(), 10_000)
NOTHING = Membership("")


def job(body: bytes = b"", headers: Headers | None = None, kind: int = PREDICT, mime: str = "application/json") -> Job:
    request = Request("id", [Part("body", mime, body)], list((headers or {}).items()), {})
    return Job(request, "m", "default", 0.0, lambda _: None, kind)


def document(**parameters: Any) -> bytes:
    return json.dumps({"inputs": [{"data": [1.5] * 3}], "parameters": parameters}).encode()


@pytest.mark.parametrize("name", [b"ts_request_sequence_id", b"TS_Request_Sequence_ID"])
def test_the_header_counts_in_any_spelling(name: bytes) -> None:
    assert READ(job(headers={b"Host": b"h", name: b"s\xe9"})) == Membership("s\xe9")


@pytest.mark.parametrize("id", ["\u017c\u00f3\u0142\u0107", "s\xe9", "\u65e5\u672c"])
def test_an_id_is_the_same_in_a_header_and_in_a_body(id: str) -> None:
    assert READ(job(headers={b"ts_request_sequence_id": id.encode()})) == Membership(id)
    assert READ(job(json.dumps({"parameters": {"sequence_id": id}}).encode(), kind=INFER)) == Membership(id)


def test_of_several_headers_the_last_one_counts() -> None:
    several = job()
    several.request.headers = [(b"ts_request_sequence_id", b"a"), (b"TS_REQUEST_SEQUENCE_ID", b"b")]
    assert READ(several).id == "b"


def test_a_renamed_header_is_the_one_that_counts() -> None:
    read = Memberships(SequenceKeys(id="X-Session"), 10_000)
    assert read(job(headers={b"x-session": b"s", b"ts_request_sequence_id": b"other"})).id == "s"


def test_without_a_header_nothing_is_said() -> None:
    assert READ(job(document(sequence_id=1))) == NOTHING, "no request of Open Inference"
    assert READ(job(headers={b"ts_request_sequence_id": b""})) == NOTHING


@pytest.mark.parametrize("kind", [INFER, INFER_EXPLAIN])
def test_parameters_of_open_inference_count(kind: int) -> None:
    body = document(sequence_id=7, sequence_start=True, sequence_end=False)
    assert READ(job(body, kind=kind)) == Membership("7", start=True)
    assert READ(job(body, {b"ts_request_sequence_id": b"s"}, kind)) == Membership("s"), "but less than a header"


def test_binary_tensors_behind_the_json_are_not_read() -> None:
    body = document(sequence_id="s")
    header = {b"Inference-Header-Content-Length": b"%d" % len(body)}
    assert READ(job(body + b"\xff\x00{", header, INFER, "application/octet-stream")).id == "s"


@pytest.mark.parametrize(
    ("encoding", "encode"), [(b"gzip", gzip.compress), (b"Deflate", zlib.compress), (b"identity", bytes)]
)
def test_compressed_bodies_are_read(encoding: bytes, encode: Any) -> None:
    assert READ(job(encode(document(sequence_id="s")), {b"content-encoding": encoding}, INFER)).id == "s"
    plain = document(sequence_id="s")
    headers = {b"content-encoding": encoding, b"inference-header-content-length": b"%d" % len(plain)}
    assert READ(job(encode(plain + b"x" * 20_000), headers, INFER)).id == "s", "of a large one as much as is needed"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"no JSON", {}),
        (b"[1]", {}),
        (b'{"parameters": [1]}', {}),
        (b"", {}),
        (b"{" * 100_000, {}),
        (b'{"a":' * 100_000, {}),
        (b"garbage", {b"content-encoding": b"gzip"}),
        (
            gzip.compress(b" " * 20_000 + document(sequence_id="s"), mtime=0),
            {b"content-encoding": b"gzip"},
        ),  # too large
        (document(sequence_id="s"), {b"content-encoding": b"br"}),
        (document(sequence_id="s"), {b"inference-header-content-length": b"3"}),
        (b"no JSON", {b"inference-header-content-length": b"9" * 5000}),
    ],
)
def test_what_workers_cannot_read_says_nothing(body: bytes, headers: Headers) -> None:
    assert READ(job(body, headers, INFER)) == NOTHING


def test_messages_of_grpc_and_forms_say_nothing_here() -> None:
    assert READ(job(document(sequence_id="s"), {}, INFER, PROTOBUF)) == NOTHING
    form = job(document(sequence_id="s"), {}, INFER)
    form.request.parts.append(Part("other", "", b""))
    assert READ(form) == NOTHING


def test_numbers_that_only_python_takes_for_json_do_no_harm() -> None:
    assert parameters_of(b'{"inputs": [NaN, Infinity], "parameters": {"sequence_id": 3}}') == {"sequence_id": 3}


@pytest.mark.parametrize(
    ("parameters", "membership"),
    [
        ({}, NOTHING),
        ({"sequence_id": 0, "sequence_start": True}, Membership("", start=True)),
        ({"sequence_id": ""}, NOTHING),
        ({"sequence_id": None}, NOTHING),
        ({"sequence_id": 2**70}, Membership(str(2**70))),
        ({"sequence_id": "é", "sequence_end": True}, Membership("é", end=True)),
    ],
)
def test_what_parameters_say(parameters: dict[str, Any], membership: Membership) -> None:
    assert membership_of(parameters) == membership


@pytest.mark.parametrize(
    "parameters",
    [
        {"sequence_id": 1.5},
        {"sequence_id": True},
        {"sequence_id": []},
        {"sequence_start": 1},
        {"sequence_end": "true"},
    ],
)
def test_parameters_of_a_wrong_kind_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="Parameter sequence_"):
        membership_of(parameters)


@given(st.binary(max_size=60), st.sampled_from([b"", b"gzip", b"deflate", b"\xff"]), st.binary(max_size=5))
def test_no_body_breaks_it(body: bytes, encoding: bytes, length: bytes) -> None:
    headers = {b"content-encoding": encoding, b"inference-header-content-length": length}
    assert READ(job(body, headers, INFER)) == NOTHING
