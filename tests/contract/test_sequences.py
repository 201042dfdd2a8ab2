"""Stateful models: requests of a sequence go to one worker, one after the other; over REST, gRPC and Open Inference."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import httpx
import pytest

from contract.grpc_server import GrpcServer
from contract.rest_server import error, serving
from contract.server import NOT_ACCEPTING, PATIENCE, ContractServer
from harness.archives import pack
from harness.server import eventually
from harness.stubs import message, module

added = pytest.mark.added
check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"ts_open_inference_protocol": "true"}
STATEFUL = "sequenceBatching: true\nsequenceMaxIdleMSec: 600000\nmaxBatchDelay: 1\n"
ID, START, END = "ts_request_sequence_id", "ts_request_sequence_start", "ts_request_sequence_end"

# Adds up the numbers of each sequence, and tells what it knows.
ADDER = """
import json
import os
import time
from pathlib import Path

from ts.handler_utils.utils import send_intermediate_predict_response

RECORD = Path(os.environ["CONTRACT_RECORD"])


class Adder:
    def initialize(self, context):
        self.name = context.model_name
        self.sums = {}

    def handle(self, data, context):
        if context.get_request_header(0, "describe") == "True":
            return [{"sequences": len(self.sums)}]
        orders = [order_of(row) for row in data]
        batch = [context.get_sequence_id(index) for index in range(len(data))]
        with (RECORD / f"{self.name}.calls").open("a") as record:
            record.write(json.dumps([[id, order.get("add")] for id, order in zip(batch, orders)]) + chr(10))
        return [self.follow(order, index, batch, context) for index, order in enumerate(orders)]

    def follow(self, order, index, batch, context):
        id = batch[index]
        if "wait" in order:
            while not (RECORD / f"{order['wait']}.gate").exists():
                time.sleep(0.005)
        if "exit" in order:
            os._exit(1)
        if "fail" in order:
            raise ValueError("no")
        self.sums[id] = self.sums.get(id, 0) + order.get("add", 0)
        for piece in order.get("pieces", ()):
            send_intermediate_predict_response([piece], context.request_ids, "", 200, context)
        headers = {key: context.get_request_header(index, key) for key in (
            context.header_key_sequence_start, context.header_key_sequence_end)}
        if "ends" in order:
            context.set_response_header(index, context.header_key_sequence_end, order["ends"])
        context.set_response_header(index, context.header_key_sequence_id, id or "none")
        told = {"sum": self.sums[id], "sequence": id, "headers": headers, "pid": os.getpid()}
        if "infer" not in order:
            return told
        output = {"name": "told", "datatype": "BYTES", "shape": [1], "data": [json.dumps(told)]}
        return {"model_name": self.name, "model_version": "1.0", "id": "1", "outputs": [output]}


def order_of(row):
    order = row.get("body") or row.get("data")
    order = json.loads(bytes(order)) if isinstance(order, (bytes, bytearray)) else order
    return {"infer": True, "add": order["parameters"]["add"]} if "inputs" in order else order
"""
# The same as a coroutine, which loses what others add in the meantime.
ASYNC_ADDER = "import asyncio" + ADDER.replace(
    "    def handle(self, data, context):",
    """    async def handle(self, data, context):
        before = dict(self.sums)
        await asyncio.sleep(0.001)
        self.sums = before""",
)


class Adders:
    """One stateful model, and what is asked of it."""

    def __init__(self, server: ContractServer, name: str, clients: ThreadPoolExecutor) -> None:
        self.server = server
        self.name = name
        self._clients = clients

    def post(self, sequence: str | None = None, *, key: str = ID, **order: Any) -> httpx.Response:
        """One request, with the header that names its sequence unless it is to begin one."""
        headers = {} if sequence is None else {key: sequence}
        path = f"/predictions/{self.name}"
        return self.server.request("POST", path, json=order, headers=headers, timeout=PATIENCE)

    def ask(self, sequence: str | None = None, **order: Any) -> dict[str, Any]:
        """What the handler tells."""
        answer = self.post(sequence, **order)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def add(self, sequence: str | None, number: int) -> int:
        """The new sum of a sequence."""
        total: int = self.ask(sequence, add=number)["sum"]
        return total

    def aside(self, sequence: str, **order: Any) -> Future[httpx.Response]:
        """The same by another client at the same time."""
        return self._clients.submit(self.post, sequence, **order)

    def calls(self) -> list[list[list[Any]]]:
        """Of every batch, what the handler was given: sequence and number of each request."""
        record = self.server.record / f"{self.name}.calls"
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []

    def occupy(self, sequence: str, gate: str, **order: Any) -> Future[httpx.Response]:
        """A request that keeps a worker busy until the gate is opened; returns once the handler is inside it."""
        begun = len(self.calls())
        call = self.aside(sequence, wait=gate, **order)
        eventually(lambda: len(self.calls()) > begun or call.done())
        assert not call.done(), call.result().text
        return call

    def open(self, gate: str) -> None:
        """Let handlers pass that wait at this gate."""
        self.server.open(gate)

    def refused(self, sequence: str | None = None) -> str:
        """The detail of a refusal."""
        answer = self.post(sequence, add=1)
        assert error(answer) == (503, "ServiceUnavailableException", NOT_ACCEPTING.format(self.name))
        detail: str = answer.json().get("cause", {}).get("detail", "")
        return detail


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


@pytest.fixture
def stateful(
    server: ContractServer, clients: ThreadPoolExecutor, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Adders]]:
    """Registers a stateful model for one test."""
    with ExitStack() as stack:

        def register(config: str = "", *, base: str = STATEFUL, workers: int = 1, source: str = ADDER) -> Adders:
            name = re.sub(r"\W", "-", request.node.name).replace("_", "-")[:60]
            stack.enter_context(serving(server, name, source, config=base + config, workers=workers))
            return Adders(server, name, clients)

        yield register


@check("generative", 14)
def test_a_request_without_id_begins_a_sequence(stateful: Callable[..., Adders]) -> None:
    model = stateful("maxNumSequence: 2\nbatchSize: 2\n")
    first = model.post(add=1)
    told = first.json()
    assert re.fullmatch(r"ts-seq-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", told["sequence"])
    assert told["headers"] == {START: "true", END: None}
    assert first.headers[ID] == told["sequence"], "which only the handler tells the client"
    told = model.ask(told["sequence"], add=2)
    assert (told["sum"], told["headers"]) == (3, {START: None, END: None})
    other = model.ask(add=5)
    assert other["sequence"] != told["sequence"] and other["sum"] == 5


@check("generative", 14)
def test_a_request_with_an_unknown_id_opens_that_sequence(stateful: Callable[..., Adders]) -> None:
    model = stateful()
    answer = model.server.request(
        "POST", f"/predictions/{model.name}", json={"add": 1}, headers={ID: "mine", START: "yes", END: "no"}
    )
    assert answer.json()["sequence"] == "mine"
    assert answer.json()["headers"] == {START: "yes", END: "no"}, "as the client says"
    model.server.says("added jobGroup for sequenceId:mine")


@fixed("sequence header names")
def test_header_names_match_in_any_spelling(stateful: Callable[..., Adders]) -> None:
    model = stateful()
    assert [model.post("s", key=key, add=1).json()["sum"] for key in (ID, ID.upper(), ID.title())] == [1, 2, 3]


@check("generative", 15)
def test_more_sequences_than_there_may_be_are_refused_until_one_is_idle(stateful: Callable[..., Adders]) -> None:
    model = stateful(base="sequenceBatching: true\nsequenceMaxIdleMSec: 300\nmaxNumSequence: 1\nmaxBatchDelay: 1\n")
    busy = model.occupy("a", "many", add=1)
    assert model.refused("late") in ("1 sequences are open (maxNumSequence)", "")
    model.server.says("for sequence: late due to jobGroups size: 1 exceeding maxNumSequence: 1")
    model.open("many")
    assert busy.result().status_code == 200
    eventually(lambda: model.post("late", add=1).status_code == 200)
    eventually(lambda: model.post("a", add=1).status_code == 200)
    assert model.ask("a", add=1)["headers"][START] is None


@check("generative", 16)
def test_sequences_keep_their_sums_apart_with_two_workers(stateful: Callable[..., Adders]) -> None:
    model = stateful("maxNumSequence: 4\nbatchSize: 2\n", workers=2)
    sums = [(model.add("odd", number), model.add("even", number + 1)) for number in (1, 3, 5, 7, 9)]
    assert [odd for odd, _ in sums] == [1, 4, 9, 16, 25]
    assert [even for _, even in sums] == [2, 6, 12, 20, 30]


@fixed("sequence queue")
@check("generative", 17)
def test_the_requests_of_a_sequence_wait_in_order_and_are_limited(stateful: Callable[..., Adders]) -> None:
    model = stateful("maxSequenceJobQueueSize: 2\nmaxNumSequence: 2\nbatchSize: 4\n")
    first = model.occupy("a", "order", add=1)
    waiting = []
    for number in (2, 3):
        waiting.append(model.aside("a", add=number))
        model.server.await_queue(model.name, number - 1)
    assert model.refused("a") in ("2 requests of sequence a wait already (maxSequenceJobQueueSize)", "")
    model.open("order")
    assert [call.result().json()["sum"] for call in (first, *waiting)] == [1, 3, 6]
    assert [[number for _, number in call] for call in model.calls()] == [[1], [2], [3]], "never two in a batch"


@fixed("sequence queue")
def test_a_batch_joins_different_sequences(stateful: Callable[..., Adders]) -> None:
    model = stateful("maxSequenceJobQueueSize: 4\nmaxNumSequence: 4\nbatchSize: 2\n")
    first = model.occupy("a", "join", add=1)
    rest = [model.aside(sequence, add=1) for sequence in ("a", "b", "b")]
    model.server.await_queue(model.name, 3)
    model.open("join")
    assert all(call.result().status_code == 200 for call in (first, *rest))
    assert [sorted(id for id, _ in call) for call in model.calls()] == [["a"], ["a", "b"], ["b"]]


@check("generative", 19)
def test_a_sequence_that_is_too_old_is_forgotten(stateful: Callable[..., Adders]) -> None:
    model = stateful("sequenceTimeoutMSec: 300\n")
    opened = re.compile(r"added jobGroup for sequenceId:aged$")
    eventually(lambda: model.add("aged", 1) and len({line for line in model.server.lines if opened.search(line)}) > 1)


@fixed("sequence crash")
@check("generative", 20)
def test_a_worker_that_dies_takes_its_sequences_along_and_comes_back(stateful: Callable[..., Adders]) -> None:
    model = stateful("maxSequenceJobQueueSize: 4\nmaxNumSequence: 2\n")
    assert model.add("idle", 7) == 7
    pid = model.ask("a", add=1)["pid"]
    dying = model.occupy("a", "crash", exit=True)
    waiting = model.aside("a", add=1)
    model.server.await_queue(model.name, 1)
    model.open("crash")
    assert error(dying.result()) == (500, "InternalServerException", "Worker died.")
    refused = waiting.result()
    assert error(refused) == (503, "ServiceUnavailableException", NOT_ACCEPTING.format(model.name))
    assert refused.json()["cause"] == {
        "reason": "sequence closed",
        "detail": "sequence a is closed: its worker died",
    }
    told = model.ask("a", add=1)
    assert (told["sum"], told["headers"][START]) == (1, None) and told["pid"] != pid
    assert model.add("idle", 1) == 1
    assert len(model.server.ready(model.name)) == 1


@fixed("sequence stalls")
@check("generative", 21)
def test_a_request_does_not_wait_for_idle_sequences(stateful: Callable[..., Adders]) -> None:
    """They are idle for longer than anybody waits."""
    model = stateful("maxNumSequence: 3\nbatchSize: 2\n")
    assert [model.add(sequence, 1) for sequence in "abcabc"] == [1, 1, 1, 2, 2, 2]


@fixed("sequences without idle limit")
def test_without_an_idle_limit_sequences_are_served_and_the_log_warns(stateful: Callable[..., Adders]) -> None:
    model = stateful(base="sequenceBatching: true\nmaxNumSequence: 2\n")
    assert [model.add("a", 1), model.add("a", 1)] == [1, 2]
    warning = f"Model {model.name} version 1.0 has sequenceBatching without sequenceMaxIdleMSec"
    model.server.says(warning)
    assert model.server.output.count(warning) == 1
    described = model.server.describe(model.name)
    assert (described["stateful"], described["maxNumSequence"], described["sequenceMaxIdleMSec"]) == (True, 2, 0)


@fixed("sequence end")
def test_a_handler_ends_its_sequence(stateful: Callable[..., Adders]) -> None:
    model = stateful("maxNumSequence: 1\n")
    for sequence in "abc":
        answer = model.post(sequence, add=1, ends=sequence)
        assert (answer.status_code, answer.headers[END]) == (200, sequence)


@added
def test_the_sequences_of_a_removed_worker_are_closed_and_others_go_on(stateful: Callable[..., Adders]) -> None:
    model = stateful("maxNumSequence: 4\n", workers=2)
    pids = {sequence: model.ask(sequence, add=1)["pid"] for sequence in "abcd"}
    assert sorted(list(pids.values()).count(pid) for pid in set(pids.values())) == [2, 2], "each worker has its share"
    oldest = model.server.ready_workers(model.name)[0]["pid"]
    assert model.server.scale(model.name, 1, max_worker=1).status_code == 200
    for sequence, pid in pids.items():
        told = model.ask(sequence, add=1)
        assert (told["sum"], told["pid"]) == (2 if pid == oldest else 1, oldest)


@added
def test_requests_that_wait_are_served_before_their_worker_is_removed(stateful: Callable[..., Adders]) -> None:
    model = stateful("maxNumSequence: 2\nmaxSequenceJobQueueSize: 2\n")
    first = model.occupy("a", "removed", add=1)
    waiting = model.aside("a", add=2)
    model.server.await_queue(model.name, 1)
    removal = model.server.rescale(model.name, min_worker=0, max_worker=0)
    assert removal.status_code == 202
    model.open("removed")
    assert [call.result().json()["sum"] for call in (first, waiting)] == [1, 3]


@added
def test_the_handler_describes_itself_beside_its_sequences(stateful: Callable[..., Adders]) -> None:
    model = stateful()
    model.add("a", 1)
    answer = model.server.request("GET", f"/models/{model.name}", "Management", params={"customized": "true"})
    assert answer.json()[0]["customizedMetadata"] == {"sequences": 1}


@added
def test_asynchronous_handlers_get_one_request_of_a_sequence_at_a_time(stateful: Callable[..., Adders]) -> None:
    model = stateful("asyncCommunication: true\nmaxNumSequence: 2\nmaxSequenceJobQueueSize: 9\n", source=ASYNC_ADDER)
    calls = [model.aside("a", add=1) for _ in range(5)]
    assert sorted(call.result().json()["sum"] for call in calls) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("encoded", [False, True], ids=["plain", "compressed"])
@added
def test_parameters_of_open_inference(stateful: Callable[..., Adders], encoded: bool) -> None:
    model = stateful("maxNumSequence: 4\n")

    def post(**parameters: Any) -> httpx.Response:
        body = json.dumps({"inputs": [], "parameters": {"add": 1, **parameters}}).encode()
        headers = {"content-type": "application/json", **({"content-encoding": "gzip"} if encoded else {})}
        content = gzip.compress(body) if encoded else body
        return model.server.request("POST", f"/v2/models/{model.name}/infer", content=content, headers=headers)

    def infer(**parameters: Any) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(post(**parameters).json()["outputs"][0]["data"][0])
        return told

    told = infer(sequence_id=42, sequence_start=True)
    assert (told["sequence"], told["sum"], told["headers"]) == ("42", 1, {START: "true", END: None})
    told = infer(sequence_id="42", sequence_end=True, sequence_start=False)
    assert (told["sequence"], told["sum"], told["headers"]) == ("42", 2, {START: None, END: "true"})
    assert model.add("42", 1) == 3, "it is the same sequence in every protocol"
    assert infer(sequence_id=0)["sequence"].startswith("ts-seq-")
    refused = post(sequence_id=1.5)
    text = "Parameter sequence_id must be an integer or a string."
    assert (refused.status_code, refused.json()["message"]) == (400, text)


@added
def test_an_id_that_cannot_be_one_is_refused(stateful: Callable[..., Adders]) -> None:
    model = stateful()
    assert error(model.post("x" * 1025, add=1))[:2] == (400, "BadRequestException")
    assert model.add("x" * 1024, 1) == 1


@fixed("renamed sequence headers")
def test_renamed_headers_are_those_that_handlers_look_for(start_server: Callable[..., ContractServer]) -> None:
    names = {"id": "X-Session", "start": "X-Begin", "end": "X-End"}
    server = start_server(config={f"ts_header_key_sequence_{key}": name for key, name in names.items()})
    pack(server.store, "adder", ADDER, config=STATEFUL)
    assert server.register("adder.mar").status_code == 200
    told = server.request("POST", "/predictions/adder", json={"add": 1}, headers={"x-session": "s", "x-end": "now"})
    assert (told.json()["sequence"], told.json()["headers"]) == ("s", {"X-Begin": None, "X-End": "now"})
    assert told.headers["x-session"] == "s"


# gRPC.


@pytest.fixture
def grpc_server(server: ContractServer) -> Iterator[GrpcServer]:
    with ExitStack() as stack:
        yield GrpcServer(server, stack)


def prediction(model: Adders, sequence: str | None = None, marks: tuple[str, ...] = (), **order: Any) -> Any:
    """A request."""
    inputs = {"data": json.dumps(order).encode(), **dict.fromkeys(marks, b"true")}
    return message("PredictionsRequest", model_name=model.name, input=inputs, sequence_id=sequence)


def told_by(response: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(response.prediction)
    return told


@check("grpc", 13)
@check("generative", 22)
@fixed("grpc half-close")
def test_a_stream_carries_sequences(stateful: Callable[..., Adders], grpc_server: GrpcServer) -> None:
    model = stateful("maxNumSequence: 2\nmaxSequenceJobQueueSize: 9\n")
    wanted = [prediction(model, sequence, add=1) for sequence in "abab"]
    answers = list(grpc_server.inference().StreamPredictions2(iter(wanted), timeout=PATIENCE))
    assert sorted((answer.sequence_id, told_by(answer)["sum"]) for answer in answers) == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("b", 2),
    ]


@check("grpc", 14)
@fixed("grpc sequence headers")
def test_a_stream_starts_and_ends_sequences(stateful: Callable[..., Adders], grpc_server: GrpcServer) -> None:
    model = stateful("maxNumSequence: 2\nmaxSequenceJobQueueSize: 9\n")
    method = grpc_server.inference().StreamPredictions2
    first, second = method(iter([prediction(model, add=1), prediction(model, marks=(START,), add=1)]), timeout=PATIENCE)
    if not second.sequence_id:
        first, second = second, first
    assert (first.status.code, first.status.message) == (13, "Parameter sequenceId is required.")
    told = told_by(second)
    assert told["sequence"] == second.sequence_id and told["headers"] == {START: "true", END: None}
    (last,) = method(iter([prediction(model, second.sequence_id, (END,), add=1)]), timeout=PATIENCE)
    assert (told_by(last)["sum"], told_by(last)["headers"]) == (2, {START: None, END: "true"})


@check("grpc", 15)
@check("generative", 22)
@fixed("grpc errors in band")
def test_streams_share_the_state_of_a_sequence_and_errors_leave_it_alone(
    stateful: Callable[..., Adders], grpc_server: GrpcServer
) -> None:
    model = stateful("maxSequenceJobQueueSize: 9\n")
    method = grpc_server.inference().StreamPredictions2
    wanted = [prediction(model, "s", add=1), prediction(model, "s", fail=True), prediction(model, "s", add=1)]
    good, bad, again = method(iter(wanted), timeout=PATIENCE)
    assert (told_by(good)["sum"], told_by(again)["sum"]) == (1, 2)
    assert (bad.prediction, bad.status.code, bad.status.message) == (b"", 14, "Prediction failed")
    (other,) = method(iter([prediction(model, "s", add=1)]), timeout=PATIENCE)
    assert (told_by(other)["sum"], told_by(other)["pid"]) == (3, told_by(good)["pid"])
    assert model.add("s", 1) == 4, "REST too"


@check("grpc", 16)
@fixed("grpc errors in band")
def test_a_stream_that_overfills_the_queue_of_its_sequence(
    stateful: Callable[..., Adders], grpc_server: GrpcServer
) -> None:
    model = stateful("maxSequenceJobQueueSize: 2\n")
    busy = model.occupy("s", "overfull", add=1)
    wanted = [prediction(model, "s", add=1) for _ in range(3)]
    answers = grpc_server.inference().StreamPredictions2(iter(wanted), timeout=PATIENCE)
    model.server.await_queue(model.name, 2)
    model.open("overfull")
    *served, refused = answers
    assert [told_by(answer)["sum"] for answer in served] == [2, 3]
    assert (refused.status.code, refused.status.message) == (13, NOT_ACCEPTING.format(model.name))
    assert busy.result().status_code == 200


@fixed("grpc calls of sequences")
def test_calls_with_one_request_belong_to_sequences(stateful: Callable[..., Adders], grpc_server: GrpcServer) -> None:
    model = stateful("maxNumSequence: 3\n")
    stub = grpc_server.inference()
    first = stub.Predictions(prediction(model, add=1), timeout=PATIENCE)
    assert told_by(first)["headers"][START] == "true"
    assert first.sequence_id == told_by(first)["sequence"] and first.sequence_id.startswith("ts-seq-")
    second = stub.Predictions(prediction(model, first.sequence_id, add=2), timeout=PATIENCE)
    assert (second.sequence_id, told_by(second)["sum"]) == (first.sequence_id, 3)
    assert told_by(second)["headers"][START] is None
    wanted = prediction(model, first.sequence_id, add=3, pieces=["one"])
    piece, last = stub.StreamPredictions(wanted, timeout=PATIENCE)
    assert (piece.prediction, piece.sequence_id, told_by(last)["sum"]) == (b"one", first.sequence_id, 6)


@fixed("grpc calls of sequences")
def test_an_id_that_cannot_be_one_is_refused_by_grpc(stateful: Callable[..., Adders], grpc_server: GrpcServer) -> None:
    model = stateful()
    with pytest.raises(grpc.RpcError) as raised:
        grpc_server.inference().Predictions(prediction(model, "a\nb", add=1), timeout=PATIENCE)
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    assert "printable" in raised.value.details()


@added
def test_parameters_of_open_inference_over_grpc(stateful: Callable[..., Adders], grpc_server: GrpcServer) -> None:
    model = stateful("maxNumSequence: 3\n")
    stub = module("grpc_predict_v2_pb2_grpc").GRPCInferenceServiceStub(grpc_server.channel())

    def wanted(**parameters: Any) -> Any:
        kinds = {bool: "bool_param", int: "int64_param", str: "string_param"}
        choices = {name: {kinds[type(value)]: value} for name, value in {"add": 1, **parameters}.items()}
        return message("ModelInferRequest", model_name=model.name, parameters=choices)

    def told(response: Any) -> tuple[str, int, dict[str, Any]]:
        known = json.loads(response.outputs[0].contents.bytes_contents[0])
        return known["sequence"], known["sum"], known["headers"]

    assert told(stub.ModelInfer(wanted(sequence_id=7, sequence_start=True), timeout=PATIENCE)) == (
        "7",
        1,
        {START: "true", END: None},
    )
    requests = [wanted(sequence_id="7"), wanted(sequence_id="7", sequence_end=True)]
    answers = [answer.infer_response for answer in stub.ModelStreamInfer(iter(requests), timeout=PATIENCE)]
    assert [told(answer)[:2] for answer in answers] == [("7", 2), ("7", 3)]
    assert told(answers[1])[2] == {START: None, END: "true"}
    assert told(stub.ModelInfer(wanted(), timeout=PATIENCE))[0].startswith("ts-seq-")
