"""Paths and queries: decoded first, split afterwards."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.errors import BadRequest
from modelserver.rest.url import parse_query, split_path, unescape


@pytest.mark.parametrize(
    ("path", "segments"),
    [
        (b"/", []),
        (b"", []),
        (b"///", []),
        (b"/ping", ["ping"]),
        (b"/ping/", ["ping"]),
        (b"/predictions/", ["predictions"]),
        (b"//ping", ["", "ping"]),
        (b"/predictions//x", ["predictions", "", "x"]),
        (b"/predictions/m%2F1.0", ["predictions", "m", "1.0"]),
        (b"/predictions/m%2f%2F", ["predictions", "m"]),
        (b"/a+b/%C3%A9", ["a+b", "\u00e9"]),
        (b"/%ff", ["\ufffd"]),
        (b"/%252F", ["%2F"]),
    ],
)
def test_split_path(path: bytes, segments: list[str]) -> None:
    assert split_path(path) == segments


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (b"/%zz", "invalid hex byte 'zz' at index 2 of '/%zz'"),
        (b"/a%", "invalid hex byte '' at index 3 of '/a%'"),
        (b"/%4", "invalid hex byte '4' at index 2 of '/%4'"),
        (b"/%41%4g", "invalid hex byte '4g' at index 5 of '/%41%4g'"),
    ],
)
def test_a_bad_escape_names_its_place(path: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        split_path(path)
    assert caught.value.message == message


def test_of_a_long_text_with_a_bad_escape_the_beginning_is_shown() -> None:
    with pytest.raises(BadRequest) as caught:
        unescape(b"a" * 5000 + b"%zz")
    assert caught.value.message == f"invalid hex byte 'zz' at index 5001 of '{'a' * 1000}'"


ESCAPES = st.sampled_from([b"%41", b"%0d", b"%0A", b"%3d", b"%25", b"%ff"])
PLAIN = st.binary(max_size=3).map(lambda text: text.replace(b"%", b"_"))


@given(st.lists(ESCAPES | PLAIN))
def test_whatever_is_escaped_comes_back(pieces: list[bytes]) -> None:
    """Line ends and blanks at the ends of lines, too."""
    text = b"".join(pieces)
    assert unescape(text) == unquote_to_bytes(text)


@pytest.mark.parametrize("separator", [b"&", b";"])
def test_the_number_of_fields_is_bounded(separator: bytes) -> None:
    assert len(parse_query(separator.join([b"a"] * 1000))) == 1000
    with pytest.raises(BadRequest, match="more than 1000 fields"):
        parse_query(separator.join([b"a"] * 1001))


@pytest.mark.parametrize(
    ("query", "pairs"),
    [
        (b"", []),
        (b"a=1&b=2;c=3", [("a", "1"), ("b", "2"), ("c", "3")]),
        (b"a=1&a=2", [("a", "1"), ("a", "2")]),
        (b"a&=b&&c=&=&==d=e", [("a", ""), ("b", ""), ("c", ""), ("d", "e")]),
        (b"a=b=c", [("a", "b=c")]),
        (b"x=a+b%2Bc%26d", [("x", "a b+c&d")]),
        (b"name%5B%5D=%C3%A9", [("name[]", "\u00e9")]),
    ],
)
def test_parse_query(query: bytes, pairs: list[tuple[str, str]]) -> None:
    assert parse_query(query) == pairs


def test_a_bad_escape_in_a_query_is_refused() -> None:
    with pytest.raises(BadRequest):
        parse_query(b"a=%zz")
