"""How bodies, queries and headers reach handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from contract.rest_server import WITNESS, get_as_is, serving, told
from contract.server import ContractServer

check = pytest.mark.check
fixed = pytest.mark.fixed
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
RAW: dict[str, Any] = {"body": ["bytearray", ""]}


@pytest.fixture(scope="module")
def witness(server: ContractServer) -> Iterator[str]:
    with serving(server, "witness", WITNESS) as name:
        yield name


def row(server: ContractServer, path: str, content: bytes | Iterator[bytes], content_type: str = "") -> Any:
    headers = {"content-type": content_type} if content_type else {}
    return told(server.request("POST", path, content=content, headers=headers))["row"]


def part(disposition: str, value: str = "v", content_type: str = "") -> bytes:
    typed = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"--b\r\nContent-Disposition: form-data{disposition}\r\n{typed}\r\n{value}\r\n".encode()


@check("handlers", 5)
@check("rest inference", 3)
@pytest.mark.parametrize(
    ("content_type", "content", "value"),
    [
        ("", b"\x00\xff", ["bytearray", "\x00\xff"]),
        ("application/json", b'{"a": [1]}', ["dict", {"a": [1]}]),
        ("application/json; charset=utf-8", b'{"a": [1]}', ["dict", {"a": [1]}]),
        ("application/json", b"[1, 2]", ["list", [1, 2]]),
        ("application/json", b'"text"', ["str", "text"]),
        ("application/json", b"7", ["int", 7]),
        ("application/json", b"1.5", ["float", 1.5]),
        ("application/json", b"true", ["bool", True]),
        ("application/json", b"null", ["NoneType", None]),
        ("Application/JSON", b'{"a": 1}', ["bytearray", '{"a": 1}']),
        ("application/json", b"{bad", ["bytearray", "{bad"]),
        ("application/json", b"", ["bytearray", ""]),
        ("text/plain", "\u00e9".encode(), ["str", "\u00e9"]),
        ("text/xml", b"<x/>", ["str", "<x/>"]),
        ("text/plain; charset=latin-1", b"\xe9", ["bytearray", "\u00e9"]),
        ("application/octet-stream", b"abc", ["bytearray", "abc"]),
        ("image/jpeg", b"\xff\xd8", ["bytearray", "\xff\xd8"]),
        ("multipart/form-data", b"abc", ["bytearray", "abc"]),
    ],
)
def test_one_value(server: ContractServer, witness: str, content_type: str, content: bytes, value: list[Any]) -> None:
    """Named `body`."""
    assert row(server, f"/predictions/{witness}", content, content_type) == {"body": value}


@check("handlers", 5)
@check("rest inference", 3)
@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (
            b"data=hello&x=1&x=2&e=%C3%A9+a%2Bb&empty=",
            {"data": "hello", "x": "2", "e": "\u00e9 a+b".encode().decode("latin-1"), "empty": ""},
        ),
        (b"novalue&x=1", {"novalue": "", "x": "1"}),
        (b"", {}),
        (b"a=1;b=2", {"a": "1;b=2"}),
    ],
)
def test_a_form(server: ContractServer, witness: str, content: bytes, fields: dict[str, str]) -> None:
    """One value per field."""
    values = {name: ["bytearray", value] for name, value in fields.items()}
    assert row(server, f"/predictions/{witness}", content, FORM) == values


@check("rest inference", 3)
@fixed("last field of a form")
@pytest.mark.parametrize(("content", "names"), [(b"a=1&lonely", ["a", "lonely"]), (b"lonely", ["lonely"])])
def test_a_field_at_the_end_of_a_form_needs_no_value(
    server: ContractServer, witness: str, content: bytes, names: list[str]
) -> None:
    """As elsewhere in the form."""
    found = row(server, f"/predictions/{witness}", content, FORM)
    assert list(found) == names
    assert found["lonely"] == ["bytearray", ""]


@check("handlers", 5)
@check("rest inference", 3)
@pytest.mark.parametrize(
    ("content", "values"),
    [
        (part('; name="a"', "{}", "application/json"), {"a": ["bytearray", "{}"]}),
        (part('; name="a"; filename="f"', "{}", "application/json; charset=utf-8"), {"a": ["dict", {}]}),
        (part('; name="a"; filename="f"', "x", "text/plain"), {"a": ["str", "x"]}),
        (part('; name="a"; filename="f"', "x"), {"a": ["bytearray", "x"]}),
        (part('; name="a"', "1") + part('; name="a"', "2"), {"a": ["bytearray", "2"]}),
        (b"", {}),
    ],
    ids=["field", "json file", "text file", "file", "twice", "empty"],
)
def test_multipart(server: ContractServer, witness: str, content: bytes, values: dict[str, Any]) -> None:
    """Only files are decoded by their type."""
    assert row(server, f"/predictions/{witness}", content + b"--b--\r\n", MULTIPART) == values


@check("rest inference", 3)
@fixed("unreadable bodies")
@pytest.mark.parametrize(
    ("content_type", "content"), [(FORM, b"a=%zz"), (MULTIPART, part("") + b"--b--\r\n")], ids=["escape", "nameless"]
)
def test_bodies_that_cannot_be_read(server: ContractServer, witness: str, content_type: str, content: bytes) -> None:
    """They never reach the model."""
    answer = server.request("POST", f"/predictions/{witness}", content=content, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException")


@check("rest inference", 3)
def test_no_body(server: ContractServer, witness: str) -> None:
    """An empty value, and a length of zero."""
    said = told(server.request("GET", f"/predictions/{witness}"))
    assert said["row"] == RAW
    assert said["headers"]["content-length"] == "0"


@check("rest inference", 3)
def test_a_chunked_body(server: ContractServer, witness: str) -> None:
    """As if its length had been known."""
    said = told(server.request("POST", f"/predictions/{witness}", content=iter([b"ab", b"c"])))
    assert said["row"] == {"body": ["bytearray", "abc"]}
    assert said["headers"]["content-length"] == "3"
    assert "transfer-encoding" not in {name.lower() for name in said["headers"]}


@check("rest inference", 3)
def test_an_encoded_body_stays_encoded(server: ContractServer, witness: str) -> None:
    """The handler sees the bytes that were sent."""
    headers = {"content-encoding": "gzip"}
    said = told(server.request("POST", f"/predictions/{witness}", content=b"\x1f\x8b", headers=headers))
    assert said["row"] == {"body": ["bytearray", "\x1f\x8b"]}


@check("rest inference", 4)
def test_decoding_can_be_switched_off(start_server: Callable[..., ContractServer]) -> None:
    """For JSON and text alike."""
    server = start_server(config={"decode_input_request": "false"})
    with serving(server, "undecoded", WITNESS) as name:
        for content_type in ("application/json", "text/plain"):
            assert row(server, f"/predictions/{name}", b"[1]", content_type) == {"body": ["bytearray", "[1]"]}


@check("rest inference", 5)
@pytest.mark.parametrize(
    ("path", "rest"),
    [
        ("", ""),
        ("/1.0", ""),
        ("/1.0/a/b", "a/b"),
        ("/1.0/v1/chat/completions/", "v1/chat/completions"),
        ("/1.0/%61", "a"),
    ],
)
@pytest.mark.parametrize("route", ["predictions", "explanations"])
def test_the_rest_of_the_path(server: ContractServer, witness: str, route: str, path: str, rest: str) -> None:
    """A header of the server tells it, whatever the client sends."""
    answer = server.request("GET", f"/{route}/{witness}{path}", headers={"url_path": "forged"})
    assert told(answer)["headers"]["url_path"] == rest


@check("rest inference", 6)
@pytest.mark.parametrize(
    ("path", "explain"),
    [
        ("/predictions/{}", "False"),
        ("/explanations/{}", "True"),
        ("/explanations/{}/1.0", "True"),
        ("/v1/models/{}:predict", "False"),
        ("/v1/models/{}:explain", "True"),
        ("/v2/models/{}/infer", "False"),
        ("/v2/models/{}/explain", "True"),
        ("/models/{}/invoke", "sent"),
        ("/{}/predict", "sent"),
        ("/{}/1.0/predict", "sent"),
        ("/invocations?model_name={}", "sent"),
    ],
)
def test_whether_to_explain(server: ContractServer, witness: str, path: str, explain: str) -> None:
    """The route says so; only some leave it to the client."""
    said = told(server.request("POST", path.format(witness), headers={"explain": "sent"}))
    assert said["headers"]["explain"] == explain
    without = told(server.request("POST", path.format(witness)))
    assert without["headers"].get("explain", "sent") == explain
    assert ("url_path" in without["headers"]) == path.startswith(("/predictions", "/explanations"))


@check("rest inference", 7)
@pytest.mark.parametrize(
    "path", ["/predictions/{}", "/explanations/{}", "/v1/models/{}:predict", "/v2/models/{}/infer"]
)
def test_where_the_query_is_ignored(server: ContractServer, witness: str, path: str) -> None:
    """It is not even decoded."""
    assert told(get_as_is(server, path.format(witness) + "?a=1&b=%zz"))["row"] == RAW


@check("handlers", 5)
@check("rest inference", 7)
@pytest.mark.parametrize(
    "path", ["/models/{}/invoke?", "/{}/predict?", "/{}/1.0/predict?", "/invocations?model_name={}&"]
)
def test_where_the_query_is_seen(server: ContractServer, witness: str, path: str) -> None:
    """Its values come first, and the body's win."""
    path = path.format(witness) + "a=1&a=2&b=x+y&e=%C3%A9"
    named = {"model_name": ["bytearray", witness]} if "invocations" in path else {}
    values = {"b": ["bytearray", "x y"], "e": ["bytearray", "\u00e9".encode().decode("latin-1")]}
    assert told(server.request("GET", path))["row"] == {**named, "a": ["bytearray", "2"], **values, **RAW}
    assert row(server, path, b"a=3", FORM) == {**named, "a": ["bytearray", "3"], **values}


@check("rest inference", 25)
@fixed("header names")
def test_headers_are_found_in_any_spelling(server: ContractServer, witness: str) -> None:
    """And listed in the client's."""
    said = told(server.request("GET", f"/predictions/{witness}", headers={"X-Foo": "1"}))
    assert said["found"] == {"X-Foo": "1", "x-foo": "1", "X-FOO": "1"}
    assert said["headers"]["X-Foo"] == "1"
    assert "x-foo" not in said["headers"]


@check("rest inference", 25)
def test_another_spelling_of_explain_means_nothing(server: ContractServer, witness: str) -> None:
    """It is a header as any other."""
    headers = told(server.request("POST", f"/models/{witness}/invoke", headers={"Explain": "True"}))["headers"]
    assert headers["Explain"] == "True"
    assert "explain" not in headers


def test_parameters_are_among_the_headers(server: ContractServer, witness: str) -> None:
    """With the type that decided how they were decoded."""
    headers = {"content-type": "text/plain; charset=utf-8"}
    said = told(server.request("POST", f"/predictions/{witness}", content=b"x", headers=headers))
    assert said["headers"]["body"] == {"content-type": "text/plain"}
