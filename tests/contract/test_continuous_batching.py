"""Requests that join and leave a running batch: what handlers see of them, and clients of their streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import httpx
import pytest

from contract.grpc_server import GrpcServer
from contract.rest_server import error, serving
from contract.server import PATIENCE, ContractServer
from harness.server import eventually
from harness.stubs import message, module

check = pytest.mark.check
fixed = pytest.mark.fixed

# Each request says for how many steps it goes on; each step waits for its gate, if requests say that there are gates.
STEPPER = """
import json
import os
import time
from pathlib import Path

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException

RECORD = Path(os.environ["CONTRACT_RECORD"])


class Stepper:
    def initialize(self, context):
        self.name = context.manifest["model"]["modelName"]
        self.step = 0
        context.cache = {}

    def handle(self, data, context):
        if context.get_request_header(0, "describe") == "True":
            return [{"described": True}]
        ids = [context.get_request_id(index) for index in range(len(data))]
        context.cache = {id: context.cache[id] for id in ids if id in context.cache}
        for id, row in zip(ids, data):
            if id not in context.cache:
                order = row.get("body") or row.get("data")
                order = json.loads(bytes(order)) if isinstance(order, (bytes, bytearray)) else order
                context.cache[id] = {"left": order.get("steps", 1), **order}
        orders = [context.cache[id] for id in ids]
        self.note(context, orders, data)
        for order in orders:
            order["left"] -= 1
        if any("gates" in order for order in orders):
            while not (RECORD / f"{self.name}.{self.step}.gate").exists():
                time.sleep(0.01)
        self.step += 1
        context.stopping_criteria = [self.criterion(order) for order in orders]
        return [self.obey(order, index, context) for index, order in enumerate(orders)]

    def obey(self, order, index, context):
        if order.get("do") == "exit":
            os._exit(1)
        if order.get("do") == "raise":
            raise PredictionException("mine alone", 418)
        if order.get("do") == "break":
            context.stopping_criteria = []
        if "header" in order:
            context.set_response_header(index, "mine", order["header"])
        if order.get("last") == "empty" and not order["left"]:
            return ""
        return f"{order['id']}{order['left'] + 1} "

    def criterion(self, order):
        whole = order.get("do") == "whole"
        return lambda text: None if whole else order["left"] < 1

    def note(self, context, orders, data):
        headers = [context.get_request_header(index, "X-Mine") for index in range(len(data))]
        call = {"step": "begin", "ids": [order["id"] for order in orders], "pid": os.getpid(), "headers": headers}
        call["rows"] = [sorted(row) for row in data]
        with (RECORD / f"{self.name}.calls").open("a") as record:
            record.write(json.dumps(call) + "\\n")
"""

# Multiplies its input with the number of the step, three times.
TENSORS = """
class Multiplier:
    def initialize(self, context):
        self.state = {}

    def handle(self, data, context):
        ids = [context.get_request_id(index) for index in range(len(data))]
        for id, row in zip(ids, data):
            if row:
                self.state[id] = [row["body"]["inputs"][0]["data"][0], 0]
            self.state[id][1] += 1
        context.stopping_criteria = [lambda _, id=id: self.state[id][1] > 2 for id in ids]
        totals = [self.state[id][0] * self.state[id][1] for id in ids]
        return [{"outputs": [{"name": "y", "datatype": "INT32", "shape": [1], "data": [total]}]} for total in totals]
"""
CONFIG = {"ts_open_inference_protocol": "true"}


class Steps:
    """Requests to one model whose handler goes on in steps."""

    def __init__(self, server: ContractServer, name: str, clients: ThreadPoolExecutor) -> None:
        self.server = server
        self.name = name
        self._clients = clients

    @property
    def url(self) -> str:
        """Where predictions are asked for."""
        return f"{self.server.url('Inference')}/predictions/{self.name}"

    def ask(self, **order: Any) -> httpx.Response:
        """One request; its answer, whole."""
        return httpx.post(self.url, json=order, timeout=PATIENCE)

    def pieces(self, **order: Any) -> list[str]:
        """The chunks of one answer."""
        with httpx.stream("POST", self.url, json=order, headers={"X-Mine": "m"}, timeout=PATIENCE) as answer:
            assert (answer.status_code, answer.headers["transfer-encoding"]) == (200, "chunked"), answer.read()
            assert answer.headers["ts_stream_next"] == "true"
            return [piece.decode() for piece in answer.iter_raw()]

    def ask_aside(self, **order: Any) -> Future[list[str]]:
        """The same by another client at the same time."""
        return self._clients.submit(self.pieces, **order)

    def whole_aside(self, **order: Any) -> Future[httpx.Response]:
        """`ask` by another client at the same time."""
        return self._clients.submit(self.ask, **order)

    def describe_aside(self) -> Future[httpx.Response]:
        """What the model says of itself, asked by another client."""
        path = f"/models/{self.name}?customized=true"
        return self._clients.submit(self.server.request, "GET", path, "Management", timeout=PATIENCE)

    @contextmanager
    def stream(self, **order: Any) -> Iterator[Iterator[bytes]]:
        """The pieces of an answer, of which the first has come; the client leaves at the end of the block."""
        with httpx.stream("POST", self.url, json=order, timeout=PATIENCE) as answer:
            yield answer.iter_raw()

    def await_step(self, count: int) -> None:
        """Return when so many steps have begun."""
        eventually(lambda: len(self.server.batches(self.name)) >= count)

    def open(self, *steps: int) -> None:
        """Let these steps pass."""
        for step in steps:
            self.server.open(f"{self.name}.{step}")

    @property
    def batches(self) -> list[str]:
        """Names of the requests of every step so far."""
        return ["".join(batch) for batch in self.server.batches(self.name)]


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


@pytest.fixture
def steps(server: ContractServer, clients: ThreadPoolExecutor, request: pytest.FixtureRequest) -> Iterator[Steps]:
    """A model of one test, with sets of three."""
    config = "continuousBatching: true\nbatchSize: 3\nmaxBatchDelay: 1\n"
    with serving(server, request.node.name.replace("_", "-"), STEPPER, config=config) as name:
        yield Steps(server, name, clients)


@check("generative", 11)
def test_requests_join_and_leave_a_running_batch(steps: Steps) -> None:
    """The places of those that are over are taken at once, in the order of arrival."""
    a = steps.ask_aside(id="A", steps=6, gates=True)
    steps.await_step(1)
    b = steps.ask_aside(id="B", steps=3)
    steps.server.await_queue(steps.name, 1)
    steps.open(0)
    steps.await_step(2)
    c = steps.ask_aside(id="C", steps=3)
    steps.server.await_queue(steps.name, 1)
    d = steps.ask_aside(id="D", steps=3)
    steps.server.await_queue(steps.name, 2)
    for step in range(1, 7):
        steps.open(step)
        steps.await_step(min(step + 2, 7))
    assert a.result() == ["A6 ", "A5 ", "A4 ", "A3 ", "A2 ", "A1 "]
    assert [call.result() for call in (b, c, d)] == [[f"{name}{left} " for left in (3, 2, 1)] for name in "BCD"]
    assert steps.batches == ["A", "AB", "ABC", "ABC", "ACD", "AD", "D"]


@check("generative", 11)
def test_a_request_that_goes_on_has_an_empty_row_and_its_headers(steps: Steps) -> None:
    assert steps.pieces(id="a", steps=3) == ["a3 ", "a2 ", "a1 "]
    calls = steps.server.calls(steps.name)
    assert [call["rows"] for call in calls] == [[["body"]], [[]], [[]]]
    assert [call["headers"] for call in calls] == [["m"]] * 3


def test_the_head_of_the_first_step_counts(steps: Steps) -> None:
    """The connection serves on."""
    with httpx.Client(timeout=PATIENCE) as client:
        for _ in range(2):
            answer = client.post(steps.url, json={"id": "a", "steps": 2, "header": "mine"})
            assert (answer.text, answer.headers["mine"]) == ("a2 a1 ", "mine")
            assert "content-length" not in answer.headers


def test_an_empty_last_piece_is_only_the_end(steps: Steps) -> None:
    assert steps.pieces(id="a", steps=3, last="empty") == ["a3 ", "a2 "]


def test_an_answer_of_one_step_without_an_opinion_is_an_ordinary_one(steps: Steps) -> None:
    answer = steps.ask(id="a", do="whole")
    assert (answer.status_code, answer.text, answer.headers["content-length"]) == (200, "a1 ", "3")


@fixed("continuous end at once")
def test_an_answer_that_is_over_after_one_step_is_an_ordinary_one(steps: Steps) -> None:
    answer = steps.ask(id="a", steps=1)
    assert (answer.status_code, answer.text, answer.headers["content-length"]) == (200, "a1 ", "3")


@check("generative", 12)
def test_a_client_that_leaves(steps: Steps) -> None:
    """Its request is missing soon after."""
    with steps.stream(id="a", steps=100_000) as pieces:
        assert next(pieces)
    text = "Connection to client got closed; Removing job: "
    eventually(lambda: text in steps.server.output)
    assert steps.ask(id="b", do="whole").text == "b1 "
    own = [line for line in steps.server.lines if text in line or ("Backend received inference at" in line)]
    after = own[next(index for index, line in enumerate(own) if text in line) + 1 :]
    assert len(after) <= 2 + 1, "that of the other request"
    assert steps.batches[-1] == "b"


def test_an_error_ends_all_that_run(steps: Steps) -> None:
    """Those that have no piece yet are told, the others are cut; the worker serves on."""
    (before,) = steps.server.ready(steps.name)
    steps.open(0)
    with steps.stream(id="a", steps=100, gates=True) as pieces, pytest.raises(httpx.TransportError):
        assert next(pieces) == b"a100 "
        bad = steps.whole_aside(id="b", do="raise")
        steps.server.await_queue(steps.name, 1)
        steps.open(1, 2, 3)
        list(pieces)
    assert error(bad.result()) == (418, "InternalServerException", "mine alone")
    assert steps.pieces(id="c", steps=2) == ["c2 ", "c1 "]
    assert steps.server.ready(steps.name)[0]["pid"] == before["pid"]


def test_a_death_ends_all_that_run(steps: Steps) -> None:
    """Another process serves what waited."""
    (before,) = steps.server.ready(steps.name)
    steps.open(0)
    with steps.stream(id="a", steps=100, gates=True) as pieces, pytest.raises(httpx.TransportError):
        assert next(pieces) == b"a100 "
        bad = steps.whole_aside(id="b", do="exit")
        steps.server.await_queue(steps.name, 1)
        steps.open(1, 2, 3)
        list(pieces)
    assert error(bad.result()) == (500, "InternalServerException", "Worker died.")
    eventually(lambda: [one for one in steps.server.ready_workers(steps.name) if one["pid"] != before["pid"]])
    assert steps.pieces(id="c", steps=2) == ["c2 ", "c1 "]


@pytest.mark.added
def test_criteria_that_break_the_rule(steps: Steps) -> None:
    """The rule is in the answer."""
    answer = steps.ask(id="a", do="break")
    assert error(answer) == (503, "InternalServerException", "Invalid stopping criteria")
    assert answer.json()["cause"] == {
        "reason": "handler contract broken",
        "detail": "context.stopping_criteria is None, or a list with one callable for each row: expected 1, got 0",
    }
    assert steps.pieces(id="c", steps=2) == ["c2 ", "c1 "]


@fixed("continuous describe")
def test_a_describe_call_comes_between_two_steps(steps: Steps) -> None:
    """The stream goes on."""
    a = steps.ask_aside(id="A", steps=3, gates=True)
    steps.await_step(1)
    described = steps.describe_aside()
    steps.server.await_queue(steps.name, 1)
    steps.open(0)
    assert described.result().json()[0]["customizedMetadata"] == {"described": True}
    steps.open(1, 2)
    assert a.result() == ["A3 ", "A2 ", "A1 "]


@pytest.mark.added
def test_a_deadline_ends_a_stream(steps: Steps) -> None:
    """One that has not begun is answered with 408."""
    late = {"X-Request-Timeout-Ms": "300"}
    waiting = httpx.post(steps.url, json={"id": "a", "gates": True}, headers=late, timeout=PATIENCE)
    assert waiting.status_code == 408
    steps.open(0)
    with httpx.stream(
        "POST", steps.url, json={"id": "b", "steps": 1_000_000}, headers=late, timeout=PATIENCE
    ) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.TransportError):
            list(answer.iter_raw())
    assert steps.ask(id="c", do="whole").text == "c1 "
    assert steps.batches[-1] == "c"


@pytest.mark.added
def test_version_1_of_kserve_streams_too(steps: Steps) -> None:
    url = f"{steps.server.url('Inference')}/v1/models/{steps.name}:predict"
    with httpx.stream("POST", url, json={"id": "a", "steps": 3}, timeout=PATIENCE) as answer:
        assert [piece.decode() for piece in answer.iter_raw()] == ["a3 ", "a2 ", "a1 "]


@pytest.mark.added
def test_open_inference_goes_on_too(server: ContractServer) -> None:
    """In chunks over REST; in one message or many over gRPC, as the method wants it."""
    tensor = {"name": "x", "datatype": "INT32", "shape": [1]}
    with serving(server, "tensors", TENSORS, config="continuousBatching: true\n") as name, ExitStack() as stack:
        url = f"{server.url('Inference')}/v2/models/{name}/infer"
        document = {"inputs": [{**tensor, "data": [4]}]}
        head = {"Inference-Header-Content-Length": str(len(json.dumps(document)))}
        content = json.dumps(document)
        with httpx.stream("POST", url, content=content, headers=head, timeout=PATIENCE) as answer:
            chunks = [json.loads(chunk) for chunk in answer.iter_raw()]
        assert [chunk["outputs"][0]["data"] for chunk in chunks] == [[4], [8], [12]]
        asked = message("ModelInferRequest", model_name=name, inputs=[{**tensor, "contents": {"int_contents": [4]}}])
        channel = GrpcServer(server, stack).channel()
        stub = module("grpc_predict_v2_pb2_grpc").GRPCInferenceServiceStub(channel)
        whole = stub.ModelInfer(asked, timeout=PATIENCE)
        assert [list(output.contents.int_contents) for output in whole.outputs] == [[4], [8], [12]]
        answers = [answer.infer_response for answer in stub.ModelStreamInfer(iter([asked]), timeout=PATIENCE)]
        assert [list(answer.outputs[0].contents.int_contents) for answer in answers] == [[4], [8], [12]]


def request(model: str, **order: Any) -> Any:
    """A `PredictionsRequest` of a sequence of its own."""
    return message(
        "PredictionsRequest", model_name=model, sequence_id=order["id"], input={"data": json.dumps(order).encode()}
    )


@pytest.fixture
def stub(server: ContractServer) -> Iterator[Any]:
    """Of the service for inference."""
    with ExitStack() as stack:
        yield GrpcServer(server, stack).inference()


@check("generative", 13)
@check("grpc", 11)
@fixed("continuous grpc")
def test_streams_by_grpc(steps: Steps, stub: Any) -> None:
    """A message for each step, then OK."""
    call = stub.StreamPredictions(request(steps.name, id="a", steps=4), timeout=PATIENCE)
    assert [answer.prediction.decode() for answer in call] == ["a4 ", "a3 ", "a2 ", "a1 "]
    assert call.code() is grpc.StatusCode.OK


@fixed("continuous grpc")
def test_unary_answers_by_grpc(steps: Steps, stub: Any) -> None:
    """All pieces joined."""
    assert stub.Predictions(request(steps.name, id="a", steps=3), timeout=PATIENCE).prediction == b"a3 a2 a1 "


@fixed("continuous grpc")
def test_conversations_by_grpc(steps: Steps, stub: Any) -> None:
    """A message for each step of each request."""
    asked = [request(steps.name, id=name, steps=2) for name in "ab"]
    answers = list(stub.StreamPredictions2(iter(asked), timeout=PATIENCE))
    for name in "ab":
        own = [answer.prediction.decode() for answer in answers if answer.sequence_id == name]
        assert own == [f"{name}2 ", f"{name}1 "]


@fixed("continuous grpc")
def test_a_death_by_grpc(steps: Steps, stub: Any) -> None:
    """Ends a stream with a status, after its pieces."""
    steps.open(0)
    call = stub.StreamPredictions(request(steps.name, id="a", steps=9, gates=True), timeout=PATIENCE)
    assert next(call).prediction == b"a9 "
    bad = steps.whole_aside(id="b", do="exit")
    steps.server.await_queue(steps.name, 1)
    steps.open(1, 2, 3)
    with pytest.raises(grpc.RpcError) as raised:
        list(call)
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert bad.result().status_code == 500


def test_a_client_of_grpc_that_leaves(steps: Steps, stub: Any) -> None:
    call = stub.StreamPredictions(request(steps.name, id="a", steps=100_000), timeout=PATIENCE)
    assert next(call).prediction == b"a100000 "
    call.cancel()
    eventually(lambda: "Connection to client got closed; Removing job: " in steps.server.output)
    assert steps.ask(id="b", do="whole").text == "b1 "
    assert steps.batches[-1] == "b"
