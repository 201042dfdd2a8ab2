"""How requests wait, how they come together in batches, and when they are refused or given up."""

from __future__ import annotations

import os
import signal
import socket
import time

import httpx
import pytest

from contract.server import NOT_ACCEPTING, ContractServer
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed


def assert_refused(answer: httpx.Response, model: str) -> None:
    body = answer.json()
    assert answer.status_code == 503
    assert {key: body[key] for key in ("code", "type", "message")} == {
        "code": 503,
        "type": "ServiceUnavailableException",
        "message": NOT_ACCEPTING.format(model),
    }


@check("runtime", 10)
def test_the_queue_is_bounded(server: ContractServer) -> None:
    """With room for two and one that runs, the fourth request is refused, and describe says so."""
    with server.model("narrow", config="jobQueueSize: 2\n"):
        calls = [server.occupy("narrow", "0", "narrow")]
        for number in (1, 2):
            calls.append(server.ask_aside("narrow", id=str(number)))
            server.await_queue("narrow", number)
        assert server.describe("narrow")["jobQueueStatus"] == {"remainingCapacity": 0, "pendingRequests": 2}
        for _ in range(2):
            assert_refused(server.ask("narrow", id="refused"), "narrow")
        server.open("narrow")
        assert [call.result().text for call in calls] == ["0", "1", "2"]
        assert server.batches("narrow") == [["0"], ["1"], ["2"]]


def test_a_named_version_is_named_in_the_refusal(server: ContractServer) -> None:
    """With the quotation mark where clients know it."""
    with server.model("bare", workers=0):
        assert_refused(server.ask("bare"), "bare")
        message = server.ask("bare/1.0").json()["message"]
        assert message.startswith('Model "bare" Version 1.0" has no worker to serve inference request. ')


@check("runtime", 11)
def test_with_tickets_only_idle_workers_take_requests(server: ContractServer) -> None:
    """Two workers, two requests; the third is refused although the queue is empty."""
    with server.model("ticketed", workers=2, config="useJobTicket: true\n"):
        assert_limit_of_two(server, "ticketed", "before")


@check("runtime", 11)
@fixed("tickets")
def test_tickets_are_exact_after_a_restart(server: ContractServer) -> None:
    """A worker that was killed and came back counts once."""
    with server.model("restamped", workers=2, config="useJobTicket: true\n"):
        victim = server.workers("restamped")[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: victim not in [worker["pid"] for worker in server.workers("restamped")])
        server.ready("restamped", 2)
        assert_limit_of_two(server, "restamped", "after")


def assert_limit_of_two(server: ContractServer, model: str, gate: str) -> None:
    calls = [server.occupy(model, name, gate) for name in ("a", "b")]
    assert_refused(server.ask(model, id="c"), model)
    server.open(gate)
    assert [call.result().text for call in calls] == ["a", "b"]
    assert server.ask(model, id="d").text == "d"


@check("runtime", 12)
def test_a_full_batch_goes_at_once(server: ContractServer) -> None:
    """Nobody waits for a delay longer than this test may last."""
    with server.model("full", batch_size=4, max_batch_delay=600_000):
        calls = [server.ask_aside("full", id=str(number)) for number in range(4)]
        assert {call.result().text for call in calls} == {"0", "1", "2", "3"}
        assert [len(batch) for batch in server.batches("full")] == [4]


@check("runtime", 12)
def test_what_does_not_fill_a_batch_goes_after_the_delay(server: ContractServer) -> None:
    """Six waiting requests are a batch of four and a batch of two; one alone is a batch of one."""
    with server.model("partial", batch_size=4, max_batch_delay=1500):
        busy = [server.ask_aside("partial", id=name, do="wait", gate="partial") for name in "abcd"]
        eventually(lambda: server.batches("partial"))
        calls = [server.ask_aside("partial", id=str(number)) for number in range(6)]
        server.await_queue("partial", 6)
        server.open("partial")
        assert [call.result().status_code for call in (*busy, *calls)] == [200] * 10
        assert server.ask("partial", id="alone").text == "alone"
        assert [len(batch) for batch in server.batches("partial")] == [4, 4, 2, 1]


@check("runtime", 12)
def test_free_workers_do_not_split_a_forming_batch(server: ContractServer) -> None:
    """Requests one after the other fill one batch, though a second worker is idle; two halves would wait for ever."""
    with server.model("shared", workers=2, batch_size=3, max_batch_delay=600_000):
        calls = []
        for number in range(3):
            calls.append(server.ask_aside("shared", id=str(number)))
            time.sleep(0.1)  # apart, as clients are
        for call in calls:
            call.result()
        assert [len(batch) for batch in server.batches("shared")] == [3]


@check("runtime", 12)
def test_the_delay_begins_when_a_worker_takes_the_first_request(server: ContractServer) -> None:
    """However long that one has waited, it waits for company again."""
    with server.model("late", batch_size=2, max_batch_delay=1500):
        busy = [server.ask_aside("late", id=name, do="wait", gate="late") for name in ("a", "b")]
        eventually(lambda: server.batches("late"))
        waited = server.ask_aside("late", id="waited")
        server.await_queue("late", 1)
        time.sleep(1.6)  # longer than the delay
        server.open("late")
        for call in busy:
            call.result()
        assert server.ask("late", id="company").text == "company"
        assert waited.result().text == "waited"
        assert server.batches("late")[1:] == [["waited", "company"]]


@check("runtime", 12)
@fixed("no delay")
def test_without_delay_a_batch_is_what_waits(server: ContractServer) -> None:
    """Six waiting requests are one batch of up to eight."""
    with server.model("eager", batch_size=8, max_batch_delay=0):
        calls = [server.occupy("eager", "first", "eager")]
        for number in range(6):
            calls.append(server.ask_aside("eager", id=str(number)))
            server.await_queue("eager", number + 1)
        server.open("eager")
        for call in calls:
            call.result()
        assert server.batches("eager") == [["first"], ["0", "1", "2", "3", "4", "5"]]


@fixed("one kind")
def test_a_batch_is_of_one_kind(server: ContractServer) -> None:
    """Predictions and explanations that wait together go apart, in their order."""
    with server.model("mixed", batch_size=8, max_batch_delay=0):
        calls = [server.occupy("mixed", "first", "mixed")]
        for number, verb in enumerate(("predictions", "predictions", "explanations", "predictions")):
            calls.append(server.ask_aside("mixed", verb=verb, id=str(number)))
            server.await_queue("mixed", number + 1)
        server.open("mixed")
        for call in calls:
            call.result()
        assert server.batches("mixed") == [["first"], ["0", "1"], ["2"], ["3"]]


@check("runtime", 22)
@fixed("client timeout")
def test_a_client_is_not_kept_longer_than_its_timeout(server: ContractServer) -> None:
    """It gets 408 while the handler still runs; the worker goes on with the next request."""
    with server.model("hurried", config="clientTimeoutInMills: 1500\n"):
        call = server.occupy("hurried", "slow", "hurried")
        answer = call.result()
        body = answer.json()
        assert (answer.status_code, body["code"], body["type"]) == (408, 408, "RequestTimeoutException")
        assert body["message"] == "Inference request timed out after 1500 ms."
        assert answer.headers["connection"] == "close"
        assert server.calls("hurried")[-1]["step"] == "begin", "the handler was not done"
        server.open("hurried")
        assert server.ask("hurried", id="next").text == "next"


@check("runtime", 22)
@fixed("client timeout")
def test_a_request_that_is_too_late_is_never_run(server: ContractServer) -> None:
    """It waited behind another one until its client was answered 408."""
    with server.model("overdue", config="clientTimeoutInMills: 1500\n"):
        calls = [server.occupy("overdue", "slow", "overdue"), server.ask_aside("overdue", id="expired")]
        assert [call.result().status_code for call in calls] == [408, 408]
        server.open("overdue")
        assert server.ask("overdue", id="next").text == "next"
        assert server.batches("overdue") == [["slow"], ["next"]]


@fixed("vanished clients")
def test_a_vanished_client_is_not_served(server: ContractServer) -> None:
    """A queued request whose client hung up is skipped."""
    with server.model("vanished") as name:
        busy = server.occupy(name, "busy", "vanished")
        url = httpx.URL(server.url())
        with socket.create_connection((url.host, url.port or 80)) as client:
            head = f"POST /predictions/{name} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            client.sendall(f'{head}Content-Length: 14\r\n\r\n{{"id": "gone"}}'.encode())
            server.await_queue(name, 1)
        server.await_queue(name, 0)
        server.open("vanished")
        assert busy.result().text == "busy"
        assert server.ask(name, id="next").text == "next"
        assert server.batches(name) == [["busy"], ["next"]]
