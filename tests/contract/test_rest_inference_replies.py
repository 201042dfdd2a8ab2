"""From what a handler returns, sets or raises to the response."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.rest_server import PUPPET, error, serving
from contract.server import PATIENCE, ContractServer
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"max_response_size": 100_000}


@pytest.fixture(scope="module")
def puppet(server: ContractServer) -> Iterator[str]:
    with serving(server, "puppet", PUPPET) as name:
        yield name


@check("rest inference", 9)
@pytest.mark.parametrize("value", [{"b": "\u00e9", "a": None}, [1, 2.5, True], 7, None, {}])
def test_other_values_become_json(server: ContractServer, puppet: str, value: Any) -> None:
    """As Python writes it with an indentation of two; nothing says that it is JSON."""
    answer = server.ask(puppet, answer=value)
    assert (answer.status_code, answer.text) == (200, json.dumps(value, indent=2))
    assert "content-type" not in answer.headers
    assert answer.headers["content-length"] == str(len(answer.content))


@check("rest inference", 10)
def test_the_content_type_is_the_handlers(server: ContractServer, puppet: str) -> None:
    """To the letter."""
    answer = server.ask(puppet, describe="text/csv; charset=utf-8")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"


@check("rest inference", 11)
def test_headers_of_the_server_win(server: ContractServer, puppet: str) -> None:
    """All others pass."""
    forged = {"x-request-id": "mine", "Cache-Control": "public", "Pragma": "x", "Expires": "never"}
    framing = {"Content-Length": "3", "Connection": "close"}
    answer = server.ask(puppet, headers={**forged, **framing, "X-Own": "value"}, answer="body")
    assert answer.text == "body"
    assert answer.headers["x-own"] == "value"
    assert not {answer.headers[name] for name in forged} & set(forged.values())
    assert (answer.headers["content-length"], answer.headers["connection"]) == ("4", "keep-alive")


@check("rest inference", 11)
@fixed("framing")
def test_a_handler_does_not_frame_its_response(server: ContractServer, puppet: str) -> None:
    """It would not be what it says."""
    answer = server.ask(puppet, headers={"Transfer-Encoding": "chunked"}, answer="body")
    assert answer.text == "body"
    assert "transfer-encoding" not in answer.headers


@check("rest inference", 12)
@pytest.mark.parametrize("status", [201, 404, 500, 599])
def test_the_status_is_the_handlers(server: ContractServer, puppet: str, status: int) -> None:
    """The body stays what it returned."""
    answer = server.ask(puppet, status=status, answer="body")
    assert (answer.status_code, answer.text) == (status, "body")
    assert answer.headers["connection"] == ("close" if status >= 400 else "keep-alive")


@check("handlers", 10)
@check("rest inference", 13)
@pytest.mark.parametrize(
    ("order", "status", "message"),
    [
        ({"raise": "ValueError"}, 503, "Prediction failed"),
        ({"raise": "MemoryError"}, 507, "Out of resources"),
        ({"raise": "CUDA"}, 507, "Out of resources"),
        ({"raise": "PredictionException"}, 500, "refused"),
        ({"raise": "404"}, 404, "absent"),
        ({"raise": "413"}, 507, "large"),
        ({"result": "text"}, 503, "Invalid model predict output"),
        ({"result": "short"}, 503, "number of batch response mismatched"),
        ({"result": "object"}, 503, "Unsupported model output data type."),
    ],
)
def test_failures_of_the_handler(
    server: ContractServer, puppet: str, order: dict[str, Any], status: int, message: str
) -> None:
    """What it had set for its response is dropped."""
    answer = server.ask(puppet, headers={"X-Own": "value"}, status=201, **order)
    assert error(answer) == (status, "InternalServerException", message)
    assert "x-own" not in answer.headers
    assert server.ask(puppet).text == "done"


@check("rest inference", 13)
def test_a_prediction_exception_may_say_that_all_is_well(server: ContractServer, puppet: str) -> None:
    """The body is one word then."""
    answer = server.ask(puppet, **{"raise": "200"})
    assert (answer.status_code, answer.text) == (200, "error")


@check("rest inference", 13)
@pytest.mark.parametrize(
    ("name", "order", "status"),
    [
        ("exiting", {"die": "exit"}, 500),
        pytest.param("killed", {"die": "kill"}, 507, marks=fixed("signal 9")),
        ("hanging", {"die": "hang"}, 500),
        ("talkative", {"answer": "x" * 200_000}, 500),
    ],
)
def test_ends_of_workers(server: ContractServer, name: str, order: dict[str, Any], status: int) -> None:
    """By exit, by SIGKILL, for not answering in time, for answering too much."""
    with serving(server, name, PUPPET, response_timeout=1):
        assert error(server.ask(name, **order)) == (status, "InternalServerException", "Worker died.")


@check("rest inference", 14)
def test_one_failure_fails_the_batch(server: ContractServer) -> None:
    """Two were innocent."""
    with serving(server, "triple", PUPPET, batch_size=3, max_batch_delay=30_000) as name:
        orders: list[dict[str, Any]] = [{}, {"raise": "ValueError"}, {}]
        calls = [server.ask_aside(name, **order) for order in orders]
        assert {error(call.result()) for call in calls} == {(503, "InternalServerException", "Prediction failed")}


@check("handlers", 13)
@check("rest inference", 18)
def test_a_stream_comes_piece_by_piece(server: ContractServer, puppet: str, tmp_path: Path) -> None:
    """The first ones arrive while the handler still works on the last one."""
    order = {"pieces": ["c0 ", "c1 "], "wait": str(tmp_path / "gate"), "answer": "last", "describe": "text/plain"}
    with httpx.Client(base_url=server.url(), timeout=PATIENCE) as client:
        with client.stream("POST", f"/predictions/{puppet}", json=order) as answer:
            assert answer.status_code == 200
            assert answer.headers["ts_stream_next"] == "true"
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.headers["content-type"] == "text/plain"
            assert "content-length" not in answer.headers
            text = answer.iter_text()
            begun = ""
            while begun != "c0 c1 ":
                begun += next(text)
            (tmp_path / "gate").touch()
            assert "".join(text) == "last"
        assert client.post(f"/predictions/{puppet}", json={}).text == "done", "on the same connection"


@check("rest inference", 18)
def test_without_pieces_there_is_no_stream(server: ContractServer, puppet: str) -> None:
    """Nor for an empty list of them."""
    answer = server.ask(puppet, pieces=[])
    assert "ts_stream_next" not in answer.headers
    assert answer.headers["content-length"] == "4"


@check("rest inference", 18)
def test_an_empty_piece_ends_nothing(server: ContractServer, puppet: str) -> None:
    """A chunk of length zero would be the end."""
    assert server.ask(puppet, pieces=["a", "", "b"], answer="c").text == "abc"


@check("rest inference", 19)
def test_a_stream_that_fails_is_seen_to_be_incomplete(server: ContractServer, puppet: str) -> None:
    """And the next request is served."""
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        server.ask(puppet, pieces=["begun "], **{"raise": "ValueError"})
    eventually(lambda: server.ask(puppet).text == "done")
