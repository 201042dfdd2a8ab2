"""JSON that handlers receive and return is what the standard library makes of it, whichever library does it."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelserver.wire.frames import Part, Request
from modelserver.worker.rows import decoded_row
from ts.protocol.encoding import NotEncodable, encode_body

LIMIT = 1 << 30
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner)
        | st.dictionaries(st.text() | st.integers() | st.floats() | st.booleans() | st.none(), inner)
    ),
)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
RUBBISH = st.text(alphabet='[]{}":,0123456789eE.+-\\utrfalsn \t\n\x00\x1f\u00e9', max_size=25)

no_deadline = settings(deadline=None, max_examples=300)


def received(text: bytes) -> Any:
    return decoded_row(Request("r0", [Part("body", "application/json", text)], [], {}))["body"]


def read_plainly(text: bytes) -> Any:
    try:
        return json.loads(text.decode())
    except ValueError:
        return bytearray(text)


def same(one: Any, other: Any) -> bool:
    """Also as to type, sign of zero and NaN."""
    return repr(one) == repr(other)


@no_deadline
@given(VALUES)
def test_a_request(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        data = text.encode("utf-8", "surrogatepass")
        assert same(received(data), read_plainly(data))


@no_deadline
@given(NUMBERS.map(str.encode) | RUBBISH.map(str.encode) | st.binary(max_size=20))
def test_numbers_and_rubbish(text: bytes) -> None:
    assert same(received(text), read_plainly(text))


@pytest.mark.parametrize(
    "text",
    [b"NaN", b"[Infinity, -Infinity]", b'"\\ud800"', b'{"\\ud800": 1}', b"1E400", b"1" * 4300, b"1" * 4301, b"-0"],
)
def test_what_is_no_strict_json(text: bytes) -> None:
    assert same(received(text), read_plainly(text))


@no_deadline
@given(VALUES.filter(lambda value: not isinstance(value, str)))
def test_a_reply(value: Any) -> None:
    assert encode_body(value, LIMIT) == json.dumps(value, indent=2).encode()


EMBEDDINGS = st.lists(
    st.floats() | st.floats(-1, 1, width=32) | st.sampled_from([1e16, 1e-05, -0.0, 0.0001]), min_size=32
)


@no_deadline
@given(EMBEDDINGS, VALUES)
def test_replies_of_many_floats(floats: list[float], other: Any) -> None:
    finite = [each for each in floats if isfinite(each)]
    for value in (
        finite * 2,
        floats,
        [floats, finite],
        {"embedding": finite * 2, "of": other, "deep": [[finite], [], {"é": [1.0, 2]}]},
        {"vectors": [finite * 2, [*floats, 1], tuple(floats)], 1: floats},
        [{"scores": finite * 32, "more": [*finite, other]}, other],
    ):
        assert encode_body(value, LIMIT) == json.dumps(value, indent=2).encode()


def test_floats_of_every_size() -> None:
    floats = [
        sign * factor * 10.0**exponent for exponent in range(-30, 30) for factor in (1, 1.5, 9.99) for sign in (1, -1)
    ]
    assert encode_body(floats, LIMIT) == json.dumps(floats, indent=2).encode()


@pytest.mark.parametrize("bad", [object(), b"bytes", {1, 2}])
def test_many_floats_with_what_is_no_json(bad: object) -> None:
    for value in ([*[0.5] * 40, bad], {"floats": [0.5] * 40, "bad": bad}):
        with pytest.raises(NotEncodable):
            encode_body(value, LIMIT)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": "\ud800"}, [[], {}, [{}]], {1: {None: []}}])
def test_a_reply_that_is_no_strict_json(value: Any) -> None:
    assert encode_body(value, LIMIT) == json.dumps(value, indent=2).encode()
