"""What a handler gives or raises, and what its clients get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from contract.server import ContractServer
from harness.server import eventually

check = pytest.mark.check
CONFIG = {"max_response_size": 100_000}


@pytest.fixture(scope="module")
def single(server: ContractServer) -> Iterator[str]:
    with server.model("single") as name:
        yield name


@pytest.fixture(scope="module")
def triple(server: ContractServer) -> Iterator[str]:
    with server.model("triple", batch_size=3, max_batch_delay=30_000) as name:
        yield name


def answers(server: ContractServer, model: str, *orders: dict[str, Any]) -> list[httpx.Response]:
    """One batch; answers in the order of the handler's rows."""
    calls = {f"{number}": server.ask_aside(model, id=f"{number}", **order) for number, order in enumerate(orders)}
    results = {name: call.result() for name, call in calls.items()}
    return [results[name] for name in server.batches(model)[-1]]


@check("runtime", 13)
def test_one_failing_row_fails_its_batch(server: ContractServer, triple: str) -> None:
    """All three clients get the same error, and the worker goes on."""
    (before,) = server.workers(triple)
    for answer in answers(server, triple, {}, {"do": "raise"}, {}):
        assert (answer.status_code, answer.json()["message"]) == (503, "Prediction failed")
    assert [answer.status_code for answer in answers(server, triple, {}, {}, {})] == [200, 200, 200]
    assert server.ready(triple)[0]["pid"] == before["pid"]


@check("runtime", 13)
def test_a_status_can_be_set_for_one_row(server: ContractServer, triple: str) -> None:
    """Its body is still what the handler returned."""
    results = answers(server, triple, {"status": 404}, {}, {})
    statuses = {answer.text: answer.status_code for answer in results}
    assert statuses == {"0": 404, "1": 200, "2": 200}


@check("runtime", 14)
@pytest.mark.parametrize(
    ("order", "status", "message"),
    [
        ({"do": "memory"}, 507, "Out of resources"),
        ({"do": "cuda"}, 507, "Out of resources"),
        ({"do": "predict-error", "text": "no such thing", "code": 404}, 404, "no such thing"),
        ({"do": "predict-error", "text": "too much", "code": 413}, 507, "too much"),
        ({"do": "raise"}, 503, "Prediction failed"),
    ],
)
def test_exceptions_have_their_statuses(
    server: ContractServer, single: str, order: dict[str, Any], status: int, message: str
) -> None:
    """And the process stays."""
    (before,) = server.workers(single)
    answer = server.ask(single, **order)
    body = answer.json()
    assert (answer.status_code, body["code"], body["message"]) == (status, status, message)
    assert body["type"] == "InternalServerException"
    assert answer.headers["connection"] == "close"
    assert server.ready_workers(single)[0]["pid"] == before["pid"]


@check("runtime", 15)
@check("worker protocol", 9)
def test_an_answer_over_the_limit_fails(server: ContractServer, single: str) -> None:
    """The log says which setting to raise, and the next request is served."""
    answer = server.ask(single, do="big", size=200_000)
    assert (answer.status_code, answer.json()["message"]) == (500, "Worker died.")
    advice = "Consider increasing the 'max_response_size' in 'config.properties' to fix."
    eventually(lambda: "TooLongFrameException: Message size exceed limit: 2" in server.log("ts_log.log"))
    eventually(lambda: advice in server.log("ts_log.log"))
    assert server.ask(single, id="next").text == "next"
