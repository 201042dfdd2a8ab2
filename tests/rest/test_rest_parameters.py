"""Parameters from queries and JSON bodies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.errors import BadRequest
from modelserver.rest.parameters import JsonParameters, Query

MANY_ESCAPES = b"'" + rb"\'" * 8_000 + b"\\"  # takes for ever where every quote is tried as the first one


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"5", 5),
        (b"-1", -1),
        (b"%2B7", 7),
        (b"007", 7),
        (b"2147483647", 2**31 - 1),
        (b"-2147483648", -(2**31)),
        (b"2147483648", None),
        (b"99999999999999999999", None),
        (b"abc", None),
        (b"", None),
        (b"+2", None),
        (b"2+", None),
        (b"1.5", None),
        (b"1_0", None),
        (b"0x1", None),
        ("\u0664".encode(), None),
    ],
)
def test_integers_of_a_query(text: bytes, number: int | None) -> None:
    """`+` is a blank in a query, and an integer has no blanks."""
    assert Query(b"n=" + text).integer("n") == number


@pytest.mark.parametrize(("text", "value"), [("true", True), ("TRUE", True), ("1", False), ("-1", False), ("", False)])
def test_booleans_of_a_query(text: str, value: bool) -> None:
    assert Query(b"b=" + text.encode()).boolean("b", default=not value) is value


def test_the_first_value_of_a_query_counts() -> None:
    query = Query(b"a=1&a=2")
    assert (query.text("a"), query.integer("a"), query.text("b"), query.integer("b")) == ("1", 1, None, None)
    assert query.boolean("b", default=True) is True


def test_json_members() -> None:
    members = JsonParameters(b'{"s": "x", "i": 3, "f": 3.0, "si": "4", "b": true, "sb": "True", "n": null, "ns": "no"}')
    assert [members.text(name) for name in ("s", "i", "b", "n", "x")] == ["x", "3", "true", None, None]
    assert [members.integer(name) for name in ("i", "f", "si", "n", "x")] == [3, 3, 4, None, None]
    assert [members.boolean(name, default=False) for name in ("b", "sb", "n", "ns")] == [True, True, False, False]
    assert members.boolean("n", default=True) is True


@pytest.mark.parametrize(
    ("body", "url"),
    [
        (b"{'url': 'x.mar', 'n': 1, 'b': true}", "x.mar"),
        (b"""{'url': 'it\\'s "x"'}""", """it's "x\""""),
        (b"""{"url": "it's", 'a': 'b'}""", "it's"),
        (b"""{'url': '\\u00e9\\\\n'}""", "\u00e9\\n"),
    ],
)
def test_single_quotes_are_accepted(body: bytes, url: str) -> None:
    assert JsonParameters(body).text("url") == url


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"3",
        b"{'a: 1}",
        b'{"a": }',
        b"\xff",
        b"{a: 1}",
        b"[" * 100_000,
        b"'" + rb"\'" * 1_000_000 + b"\\",
    ],
)
def test_malformed_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        JsonParameters(body)


def test_wrong_types_are_refused() -> None:
    members = JsonParameters(b'{"l": [1], "o": {}, "f": 1.5, "t": "abc", "b": true, "i": 1, "big": 2147483648}')
    for name in ("l", "o"):
        with pytest.raises(BadRequest, match=f"Parameter {name} is not a string"):
            members.text(name)
    for name in ("l", "f", "t", "b", "big"):
        with pytest.raises(BadRequest, match=f"Parameter {name} is not an integer"):
            members.integer(name)
    for name in ("l", "i"):
        with pytest.raises(BadRequest, match=f"Parameter {name} is not a boolean"):
            members.boolean(name, default=False)


@given(st.binary() | st.text().map(str.encode) | st.text(alphabet="{}'\"\\:, a1").map(str.encode))
def test_no_body_breaks_the_reader(body: bytes) -> None:
    try:
        JsonParameters(body)
    except BadRequest:
        pass


def test_a_text_without_an_end_is_read_once() -> None:
    with pytest.raises(BadRequest, match="not valid JSON"):
        JsonParameters(MANY_ESCAPES)


def test_single_quotes_are_looked_for_in_bodies_of_a_reasonable_size() -> None:
    """In millions of quotes it would take seconds, in which nobody else is served."""
    assert JsonParameters(b"{'url': '%b'}" % (b"x" * 10_000)).text("url") == "x" * 10_000
    assert JsonParameters(b'{"url": "%b"}' % (b"x" * 100_000)).text("url") == "x" * 100_000
    with pytest.raises(BadRequest, match="not valid JSON"):
        JsonParameters(b"{'url': '%b'}" % (b"x" * 100_000))
