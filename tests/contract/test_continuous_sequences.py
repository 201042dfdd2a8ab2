"""Stateful models with continuous batching: a request joins while an earlier one of its sequence goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from contract.grpc_server import GrpcServer
from contract.rest_server import error, serving
from contract.server import NOT_ACCEPTING, PATIENCE, ContractServer
from harness.server import eventually
from harness.stubs import message

check = pytest.mark.check
fixed = pytest.mark.fixed
ID, START, END = "ts_request_sequence_id", "ts_request_sequence_start", "ts_request_sequence_end"
CONFIGURATION = """
sequenceBatching: true
continuousBatching: true
sequenceMaxIdleMSec: 600000
maxNumSequence: 2
maxSequenceJobQueueSize: 4
batchSize: 2
maxBatchDelay: 1
"""

# Even numbers are added up; an odd one begins a stream of sums, which a negative one ends; 0 ends the sequence.
SUMMER = """
import json
import os
import time
from pathlib import Path

RECORD = Path(os.environ["CONTRACT_RECORD"])


class Summer:
    def initialize(self, context):
        self.name = context.manifest["model"]["modelName"]
        self.sums = {}
        self.numbers = {}
        self.stopped = set()

    def handle(self, data, context):
        ids = [context.get_request_id(index) for index in range(len(data))]
        self.numbers = {id: self.numbers[id] for id in ids if id in self.numbers}
        fresh = [bool(row) for row in data]
        for id, row in zip(ids, data):
            if row:
                self.numbers[id] = int(bytes(row.get("body") or row.get("data")))
        sequences = [context.get_sequence_id(index) for index in range(len(data))]
        with (RECORD / f"{self.name}.calls").open("a") as record:
            call = {"step": "begin", "ids": [str(self.numbers[id]) for id in ids]}
            record.write(json.dumps({**call, "sequences": sequences}) + "\\n")
        answers = [
            self.follow(self.numbers[id], sequence, new, index, context)
            for index, (id, sequence, new) in enumerate(zip(ids, sequences, fresh))
        ]
        context.stopping_criteria = [
            self.criterion(self.numbers[id], sequence) for id, sequence in zip(ids, sequences)
        ]
        if any(number % 2 for number in self.numbers.values() if number > 0):
            time.sleep(0.01)
        return answers

    def follow(self, number, sequence, new, index, context):
        context.set_response_header(index, context.header_key_sequence_id, sequence)
        if number < 0:
            self.stopped.add(sequence)
            return str(number)
        if new:
            self.sums[sequence] = self.sums.get(sequence, 0) + number
            self.stopped.discard(sequence)
        if number == 0:
            context.set_response_header(index, context.header_key_sequence_end, sequence)
            return str(self.sums.pop(sequence))
        return str(self.sums[sequence]) + (" " if number % 2 else "")

    def criterion(self, number, sequence):
        if number > 0 and number % 2:
            return lambda text: sequence in self.stopped
        return lambda text: None
"""


class Sums:
    """One model, and what is asked of it."""

    def __init__(self, server: ContractServer, name: str) -> None:
        self.server = server
        self.url = f"{server.url('Inference')}/predictions/{name}"
        self.name = name

    def ask(self, number: int, sequence: str | None = None) -> httpx.Response:
        """One request; its answer, whole."""
        headers = {} if sequence is None else {ID: sequence}
        return httpx.post(self.url, content=str(number), headers=headers, timeout=PATIENCE)


@pytest.fixture
def sums(server: ContractServer, request: pytest.FixtureRequest) -> Iterator[Sums]:
    """A model of one test."""
    with serving(server, request.node.name.replace("_", "-"), SUMMER, config=CONFIGURATION) as name:
        yield Sums(server, name)


@check("generative", 18)
def test_a_session(sums: Sums) -> None:
    """A stream of a sequence is ended by a later request of the same one."""
    first = sums.ask(2)
    sequence = first.headers[ID]
    assert first.text == "2" and sequence.startswith("ts-seq-")
    assert sums.ask(4, sequence).text == "6"
    with httpx.stream("POST", sums.url, content="1", headers={ID: sequence}, timeout=PATIENCE) as stream:
        pieces = stream.iter_raw()
        assert next(pieces) == b"7 " and stream.headers[ID] == sequence
        assert sums.ask(-1, sequence).text == "-1"
        assert set(pieces) <= {b"7 "}
    last = sums.ask(0, sequence)
    assert (last.text, last.headers[END]) == ("7", sequence)


@check("generative", 18)
def test_sequences_that_have_ended_make_room(sums: Sums) -> None:
    """More of them than may be open, one after the other."""
    for number in range(5):
        sequence = sums.ask(2 * number).headers[ID]
        assert sums.ask(0, sequence).text == str(2 * number)


def test_streams_of_two_sequences_share_their_steps(sums: Sums) -> None:
    """And a sequence more than may be open is refused meanwhile."""
    opened = [sums.ask(2).headers[ID] for _ in range(2)]
    with ExitStack() as stack:
        streams = [
            stack.enter_context(httpx.stream("POST", sums.url, content="1", headers={ID: one}, timeout=PATIENCE))
            for one in opened
        ]
        pieces = [stream.iter_raw() for stream in streams]
        assert [next(each) for each in pieces] == [b"3 ", b"3 "]
        eventually(lambda: ["1", "1"] in sums.server.batches(sums.name))
        status, kind, text = error(sums.ask(2, "third"))
        assert (status, kind, text) == (503, "ServiceUnavailableException", NOT_ACCEPTING.format(sums.name))
        assert [sums.ask(-1, one).text for one in opened] == ["-1", "-1"]
        assert [set(each) <= {b"3 "} for each in pieces] == [True, True]


@pytest.mark.added
def test_an_error_ends_the_stream_and_not_the_sequence(sums: Sums) -> None:
    """The worker has its state still."""
    sequence = sums.ask(2).headers[ID]
    with ThreadPoolExecutor(1) as clients:
        with httpx.stream("POST", sums.url, content="1", headers={ID: sequence}, timeout=PATIENCE) as stream:
            pieces = stream.iter_raw()
            assert next(pieces) == b"3 "
            bad = clients.submit(httpx.post, sums.url, content="no number", headers={ID: sequence}, timeout=PATIENCE)
            with pytest.raises(httpx.TransportError):
                list(pieces)
        assert bad.result().status_code == 503
    assert sums.ask(4, sequence).text == "7"


@fixed("continuous grpc")
def test_a_conversation(server: ContractServer, sums: Sums) -> None:
    """Answers of a sequence come in the order of its requests; ends of streams are asked for by other calls."""
    with ExitStack() as stack:
        stub = GrpcServer(server, stack).inference()

        def asked(number: int) -> object:
            data = {"data": str(number).encode()}
            return message("PredictionsRequest", model_name=sums.name, sequence_id="mine", input=data)

        assert stub.Predictions(asked(2), timeout=PATIENCE).prediction == b"2"
        call = stub.StreamPredictions2(iter([asked(4), asked(1)]), timeout=PATIENCE)
        assert [next(call).prediction for _ in range(2)] == [b"6", b"7 "]
        assert stub.Predictions(asked(-1), timeout=PATIENCE).prediction == b"-1"
        assert {answer.prediction for answer in call} <= {b"7 "}
        stream = stub.StreamPredictions(asked(3), timeout=PATIENCE)
        piece = next(stream)
        assert (piece.prediction, piece.sequence_id) == (b"10 ", "mine"), "told though only its worker knows it now"
        whole = stub.Predictions.future(asked(1), timeout=PATIENCE)
        eventually(lambda: ["3", "1"] in sums.server.batches(sums.name))
        assert stub.Predictions(asked(-1), timeout=PATIENCE).prediction == b"-1"
        assert whole.result().sequence_id == "mine" and set(whole.result().prediction.split()) == {b"11"}
        assert {answer.prediction for answer in stream} <= {b"10 ", b"11 "}
        assert stub.Predictions(asked(0), timeout=PATIENCE).prediction == b"11"
    assert json.loads(sums.server.request("GET", f"/models/{sums.name}", "Management").text)[0]["stateful"] is True
