"""The header mapping: the client's spelling is kept, a lookup is kinder than that."""

from __future__ import annotations

import copy
import json

import pytest
from workshop import request

from modelserver.wire.frames import Part, Request
from modelserver.worker.headers import RequestHeaders, WireRequestProcessor


def headers_of(*sent: tuple[bytes, bytes], extra: dict[str, str] | None = None) -> RequestHeaders:
    return RequestHeaders(Request("r0", [Part("data", "text/plain", b"x")], list(sent), extra or {}))


def test_parameters_headers_and_additions_in_this_order() -> None:
    headers = headers_of((b"X-One", b"1"), (b"accept", b"*/*"), extra={"url_path": "", "explain": "False"})
    assert list(headers.items()) == [
        ("data", {"content-type": "text/plain"}),
        ("X-One", "1"),
        ("accept", "*/*"),
        ("url_path", ""),
        ("explain", "False"),
    ]


def test_exact_spelling_beats_any_other() -> None:
    headers = headers_of((b"X-Dup", b"1"), (b"x-dup", b"2"))
    assert headers.get("X-Dup") == "1"
    assert headers.get("x-dup") == "2"
    assert headers.get("X-DUP") == "2"  # the last one sent


def test_the_last_of_the_same_spelling_wins() -> None:
    assert headers_of((b"A", b"1"), (b"A", b"2"))["A"] == "2"


@pytest.mark.parametrize("key", ["explain", "describe", "url_path"])
def test_another_spelling_does_not_pass_for_the_servers_own(key: str) -> None:
    headers = headers_of((key.title().encode(), b"True"))
    assert headers.get(key) is None
    assert key not in headers
    assert headers.get(key.title()) == "True"


def test_additions_override_the_client() -> None:
    headers = headers_of((b"explain", b"True"), (b"Explain", b"True"), extra={"explain": "False"})
    assert headers["explain"] == "False"
    assert headers["Explain"] == "True"


def test_parameters_are_found_by_exact_spelling_only() -> None:
    headers = headers_of()
    assert headers.get("Data") is None
    assert "DATA" not in headers


def test_a_header_named_like_a_parameter_replaces_its_entry() -> None:
    assert headers_of((b"data", b"h"))["data"] == "h"


def test_values_are_latin_1() -> None:
    assert headers_of((b"N", b"h\xe9"))["n"] == "h\xe9"


def test_missing_headers() -> None:
    headers = headers_of()
    assert headers.get("no") is None
    assert headers.get("no", "default") == "default"
    with pytest.raises(KeyError):
        headers["no"]


def test_it_is_a_plain_dict_to_everybody_else() -> None:
    headers = headers_of((b"A", b"1"))
    assert json.loads(json.dumps(headers)) == {"data": {"content-type": "text/plain"}, "A": "1"}
    assert dict(headers) == {**headers}
    clone = copy.deepcopy(headers)
    assert clone == headers
    assert clone.get("a") == "1"


def test_additions_are_found_without_decoding() -> None:
    class Untouchable(list[tuple[bytes, bytes]]):
        def __iter__(self) -> object:  # type: ignore[override]
            raise AssertionError("headers were decoded")

    processor = WireRequestProcessor(Request("r0", [], Untouchable(), {"explain": "False"}))
    assert processor.get_request_property("explain") == "False"
    with pytest.raises(AssertionError):
        processor.get_request_property("describe")


def test_headers_are_decoded_once() -> None:
    processor = WireRequestProcessor(request(headers=[(b"A", b"1")]))
    assert processor.get_request_properties() is processor.get_request_properties()
    assert processor.get_request_property("a") == "1"
