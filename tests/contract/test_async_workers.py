"""Handlers that are coroutines, in workers that take requests while others run."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from contract.rest_server import error, serving
from contract.server import PATIENCE, ContractServer
from harness.archives import pack
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"model_metrics_auto_detect": "true"}
ASYNC = "asyncCommunication: true\n"

# Requests wait for one another, so they must run at the same time.
TALKER = """
import asyncio
import os
from collections import defaultdict

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException


class Talker:
    def initialize(self, context):
        self.ready = asyncio.get_event_loop().run_until_complete(self.prepare())
        self.opened = defaultdict(asyncio.Event)
        self.entered = []
        self.sizes = []

    async def prepare(self):
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    async def handle(self, data, context):
        assert asyncio.get_running_loop() is self.ready
        self.sizes.append(len(data))
        return await asyncio.gather(*(self.follow(row["body"], i, context) for i, row in enumerate(data)))

    async def follow(self, order, index, context):
        self.entered.append(order.get("id"))
        context.mine = order.get("id")
        if "count" in order:
            context.metrics.add_counter("Counted", 1, index)
        if "piece" in order:
            send_intermediate_predict_response([order["piece"]], context.request_ids, "", 200, context)
        if "open" in order:
            self.opened[order["open"]].set()
        if "wait" in order:
            await self.opened[order["wait"]].wait()
        if "header" in order:
            context.set_response_header(index, "mine", context.mine)
        if "fail" in order:
            raise PredictionException(order["fail"], 418)
        if "exit" in order:
            os._exit(1)
        answers = {"id": order.get("id"), "entered": self.entered, "sizes": self.sizes, "pid": os.getpid()}
        return answers[order.get("tell", "id")]
"""


class Talk:
    """Requests to one asynchronous model."""

    def __init__(self, server: ContractServer, name: str, clients: ThreadPoolExecutor) -> None:
        self.server = server
        self.name = name
        self._clients = clients

    def ask(self, **order: Any) -> httpx.Response:
        """One request."""
        return self.server.request("POST", f"/predictions/{self.name}", json=order, timeout=PATIENCE)

    def ask_aside(self, **order: Any) -> Future[httpx.Response]:
        """The same by another client at the same time."""
        return self._clients.submit(self.ask, **order)

    def wait(self, *names: str, gate: str, **order: Any) -> list[Future[httpx.Response]]:
        """Requests that are inside the handler, until a later one opens the gate."""
        calls = [self.ask_aside(id=name, wait=gate, **order) for name in names]
        eventually(lambda: set(names) <= set(self.ask(tell="entered").json()))
        return calls


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


@pytest.fixture
def talk(server: ContractServer, clients: ThreadPoolExecutor, request: pytest.FixtureRequest) -> Iterator[Talk]:
    """An asynchronous model for one test."""
    with serving(server, request.node.name.replace("_", "-"), TALKER, config=ASYNC) as name:
        yield Talk(server, name, clients)


@check("generative", 23)
@check("handlers", 25)
def test_requests_run_while_others_wait(talk: Talk) -> None:
    """In one worker, and each gets its own answer."""
    waiting = talk.wait("a", "b", "c", gate="g", header="mine")
    assert talk.ask(id="d", open="g", header="mine").headers["mine"] == "d"
    answers = [call.result() for call in waiting]
    assert [(answer.text, answer.headers["mine"]) for answer in answers] == [("a", "a"), ("b", "b"), ("c", "c")]


@check("generative", 23)
@check("handlers", 25)
@fixed("asynchronous errors")
def test_errors_stay_with_their_own_request(talk: Talk) -> None:
    """The others are served, and connections that are idle hear nothing."""
    url = httpx.URL(talk.server.url("Inference"))
    with socket.create_connection((url.host, url.port or 80), timeout=PATIENCE) as idle:
        assert b"early" in exchange(idle, talk.name, {"id": "early"})
        waiting = talk.wait("a", "b", gate="g")
        assert error(talk.ask(fail="mine alone")) == (418, "InternalServerException", "mine alone")
        assert not any(call.done() for call in waiting)
        talk.ask(open="g")
        assert [call.result().text for call in waiting] == ["a", "b"]
        assert select.select([idle], [], [], 0) == ([], [], [])
        assert b"late" in exchange(idle, talk.name, {"id": "late"})


def exchange(connection: socket.socket, model: str, order: dict[str, Any]) -> bytes:
    """A request over a connection that stays open, and its answer."""
    body = json.dumps(order).encode()
    head = f"POST /predictions/{model} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = connection.recv(1 << 16)
    while not answer.endswith(order["id"].encode()):
        more = connection.recv(1 << 16)
        assert more, answer
        answer += more
    return answer


@check("generative", 24)
@fixed("asynchronous crashes")
def test_a_worker_that_dies_fails_all_it_had(talk: Talk) -> None:
    """With 500; another process takes its place, is shown as ready, and serves."""
    (before,) = talk.server.ready(talk.name)
    waiting = talk.wait(*"abcdefghi", gate="never")
    dead = [talk.ask(exit=True), *(call.result() for call in waiting)]
    assert [error(answer) for answer in dead] == [(500, "InternalServerException", "Worker died.")] * 10
    (after,) = talk.server.ready(talk.name)
    assert after["pid"] != before["pid"] and after["id"] == before["id"]
    assert talk.ask(id="next").text == "next"
    talk.server.logged(after["id"], r"^Auto recovery succeeded, reset recoveryStartTS$")


@fixed("asynchronous timeouts")
def test_a_worker_that_says_nothing(server: ContractServer) -> None:
    """Is ended after responseTimeout, and another process serves."""
    with serving(server, "mute", TALKER, config=f"{ASYNC}responseTimeout: 1\n") as name:
        answer = server.request("POST", f"/predictions/{name}", json={"wait": "never"}, timeout=PATIENCE)
        assert error(answer) == (500, "InternalServerException", "Worker died.")
        again = server.request("POST", f"/predictions/{name}", json={"id": "next"}, timeout=PATIENCE)
        assert again.text == "next"


@check("generative", 25)
def test_a_load_that_takes_too_long_fails(server: ContractServer) -> None:
    """The log says what the limit was."""
    endless = TALKER.replace("self.ready = ", "import threading; threading.Event().wait(); self.ready = ")
    pack(server.store, "endless", endless, config=f"{ASYNC}startupTimeout: 1\nmaxRetryTimeoutInSec: 0\n")
    answer = server.register("endless.mar", timeout=PATIENCE)
    status, kind, message = error(answer)
    assert (status, message) == (500, "Failed to start workers for model endless version: 1.0"), kind
    eventually(lambda: "Worker did not load the model within 1 seconds" in server.log("ts_log.log"))


@check("model config", 12)
def test_the_command_line_says_so(talk: Talk) -> None:
    """`--async`."""
    (worker,) = talk.server.ready(talk.name)
    talk.server.logged(worker["id"], r"^Worker cmdline: \[.*--async.*\]$")


def test_streams_interleave(talk: Talk) -> None:
    """Each piece goes to its own client while the other handler waits."""
    url = f"{talk.server.url('Inference')}/predictions/{talk.name}"
    with (
        httpx.stream("POST", url, json={"id": "1", "piece": "one ", "wait": "g"}, timeout=PATIENCE) as first,
        httpx.stream("POST", url, json={"id": "2", "piece": "two ", "wait": "g"}, timeout=PATIENCE) as second,
    ):
        pieces = [first.iter_text(), second.iter_text()]
        assert [next(piece) for piece in pieces] == ["one ", "two "]
        talk.ask(open="g")
        assert ["".join(piece) for piece in pieces] == ["1", "2"]


@fixed("asynchronous batches")
def test_batches_of_more_than_one(server: ContractServer, clients: ThreadPoolExecutor) -> None:
    """One call of the handler for each; several at a time."""
    config = f"{ASYNC}batchSize: 2\nmaxBatchDelay: 20000\n"
    with serving(server, "pairs", TALKER, config=config) as name:
        talk = Talk(server, name, clients)
        waiting = [talk.ask_aside(id=name, wait="g") for name in "ab"]
        opening = [talk.ask_aside(id=name, open="g") for name in "cd"]
        assert [call.result().text for call in [*waiting, *opening]] == ["a", "b", "c", "d"]
        told = [talk.ask_aside(tell="sizes") for _ in range(2)]
        assert [call.result().json() for call in told] == [[2, 2, 2]] * 2
