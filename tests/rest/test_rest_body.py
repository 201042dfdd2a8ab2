"""From a body to its parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.errors import BadRequest
from modelserver.rest.body import parts_of

FORM = b"application/x-www-form-urlencoded"
MULTIPART = b"multipart/form-data; boundary=xyz"

Parts = list[tuple[str, str, bytes]]


def read(content_type: bytes, body: bytes) -> Parts:
    return [(part.name, part.mime, part.value) for part in parts_of(content_type, body)]


@pytest.mark.parametrize(
    ("content_type", "mime"),
    [
        (b"", ""),
        (b"application/json", "application/json"),
        (b"Application/JSON", "Application/JSON"),
        (b"application/json; charset=utf-8", "application/json"),
        (b"application/json ; charset=utf-8", "application/json "),  # as sent, which is not decoded
        (b"text/plain;charset=latin-1", "text/plain"),
        (b"image/jpeg", "image/jpeg"),
        (b"multipart/form-data", "multipart/form-data"),
        (b"multipart/mixed; boundary=xyz", "multipart/mixed"),
    ],
)
def test_anything_else_is_one_raw_part(content_type: bytes, mime: str) -> None:
    assert read(content_type, b"\x00abc") == [("body", mime, b"\x00abc")]
    assert read(content_type, b"") == [("body", mime, b"")]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", []),
        (
            b"data=hello&x=1&x=2&e=%C3%A9+a%2Bb&empty=",
            [("data", b"hello"), ("x", b"1"), ("x", b"2"), ("e", "\u00e9 a+b".encode()), ("empty", b"")],
        ),
        (b"novalue&x=1", [("novalue", b""), ("x", b"1")]),
        (b"a=1&lonely", [("a", b"1"), ("lonely", b"")]),
        (b"lonely", [("lonely", b"")]),
        (b"a=1;b=2", [("a", b"1;b=2")]),
        (b"a=%ff", [("a", b"\xff")]),
        (b"n%C3%A9=1", [("n\u00e9", b"1")]),
        (b"a=b=c", [("a", b"b=c")]),
        (b"&&a=1&&b=2&", [("a", b"1"), ("b", b"2")]),
        (b"a=1\r\n", [("a", b"1")]),
        (b"a=1\nb=2&c=3", [("a", b"1")]),
        (b"a=1\r2&c=3", [("a", b"1\r2"), ("c", b"3")]),
        (b"a\n=1&c=3", [("a\n", b"1"), ("c", b"3")]),
    ],
)
@pytest.mark.parametrize("content_type", [FORM, b"Application/X-WWW-Form-Urlencoded; charset=utf-8"])
def test_form_fields(content_type: bytes, body: bytes, fields: list[tuple[str, bytes]]) -> None:
    assert read(content_type, body) == [(name, "", value) for name, value in fields]


@pytest.mark.parametrize("body", [b"a=%zz", b"%4=1", b"a=%", b"=", b"=1", b"a=1&=2"])
def test_a_bad_escape_or_an_empty_name_in_a_form_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parts_of(FORM, body)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (b'Content-Disposition: form-data; name="a"\r\n\r\nhello', ("a", "", b"hello")),
        (
            b'Content-Disposition: form-data; name="a"\r\nContent-Type: application/json\r\n\r\n{}',
            ("a", "", b"{}"),
        ),
        (
            b'content-disposition: form-data; name=a; filename="x.json"\r\n'
            b"content-type: application/json; charset=utf-8\r\n\r\n{}",
            ("a", "application/json", b"{}"),
        ),
        (
            b'Content-Disposition: form-data; name="a"; filename="x.bin"\r\n\r\n\x00\r\n\xff',
            ("a", "application/octet-stream", b"\x00\r\n\xff"),
        ),
        (
            b"Content-Disposition: form-data; name=\"a\"; filename*=utf-8''%C3%A9\r\nContent-Type: text/plain\r\n\r\nx",
            ("a", "text/plain", b"x"),
        ),
        ('Content-Disposition: form-data; name="n\u00e9"\r\n\r\nv'.encode(), ("n\u00e9", "", b"v")),
        (b'Content-Disposition: form-data; name="e"\r\n\r\n', ("e", "", b"")),
    ],
)
def test_multipart_parts(part: bytes, expected: tuple[str, str, bytes]) -> None:
    assert read(MULTIPART, b"--xyz\r\n" + part + b"\r\n--xyz--\r\n") == [expected]


def test_multipart_keeps_order_and_duplicates() -> None:
    part = b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n%d\r\n'
    body = b"preamble\r\n" + part % 1 + part % 2 + b"--xyz--\r\n"
    assert read(b'Multipart/Form-Data; Boundary="xyz"', body) == [("a", "", b"1"), ("a", "", b"2")]


@pytest.mark.parametrize("body", [b"", b"--xyz--\r\n", b"no delimiter at all"])
def test_multipart_without_a_part(body: bytes) -> None:
    assert read(MULTIPART, body) == []


@pytest.mark.parametrize(
    "body",
    [
        b"--xyz\r\nContent-Disposition: form-data\r\n\r\nx\r\n--xyz--\r\n",
        b'--xyz\r\nContent-Disposition: form-data; name=""\r\n\r\nx\r\n--xyz--\r\n',
        b"--xyz\r\n\r\nx\r\n--xyz--\r\n",
        b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\ncut off',
        b"--xyz\r\nno colon\r\n\r\nx\r\n--xyz--\r\n",
        b"--xyzzy\r\n\r\n",
        b"--xyz\r\n" + b"a: b\r\n" * 100 + b"\r\nx\r\n--xyz--\r\n",
    ],
    ids=["nameless", "empty name", "no headers", "cut off", "bad header", "other boundary", "too many headers"],
)
def test_multipart_that_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parts_of(MULTIPART, body)


def test_the_number_of_parts_is_bounded() -> None:
    """A field takes two bytes of a body but far more of memory."""
    part = b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    assert len(parts_of(FORM, b"&".join([b"a"] * 1000))) == 1000
    assert len(parts_of(MULTIPART, part * 1000 + b"--xyz--")) == 1000
    with pytest.raises(BadRequest, match="more than 1000 fields"):
        parts_of(FORM, b"&".join([b"a"] * 1001))
    with pytest.raises(BadRequest, match="more than 1000 fields"):
        parts_of(MULTIPART, part * 1001 + b"--xyz--")


@given(
    st.sampled_from([FORM, MULTIPART, b"multipart/form-data; boundary=-", b'multipart/form-data; boundary="']),
    st.binary() | st.binary().map(lambda data: b"--xyz\r\n" + data + b"\r\n--xyz--"),
)
def test_no_body_breaks_the_reader(content_type: bytes, body: bytes) -> None:
    try:
        parts_of(content_type, body)
    except BadRequest:
        pass
