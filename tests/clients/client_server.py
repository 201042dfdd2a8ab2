"""The server that other people's clients speak to, and its models."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clients.environments import PROGRAM
from harness.archives import pack
from harness.server import MODELSERVER, ServerProcess, eventually

# Gives every input back as an output. It knows the protocol: it gets and returns its objects. JSON that nobody has
# called so comes as bytes: `tritonclient` sends no content type.
ECHO = """
import json


def handle(data, context):
    if data is None:
        return None
    return [answer(row["body"]) for row in data]


def answer(body):
    body = body if isinstance(body, dict) else json.loads(body)
    outputs = [
        {"name": "out-" + tensor["name"], "datatype": tensor["datatype"], "shape": tensor["shape"],
         "data": tensor["data"]}
        for tensor in body["inputs"]
    ]
    return {"id": body.get("id"), "model_name": "echo", "model_version": "1.0", "outputs": outputs}
"""

# Knows nothing of the protocol: it gets a row of numbers.
DOUBLE = """
def handle(data, context):
    return None if data is None else [row["body"] * 2 for row in data]
"""
DOUBLE_CONFIG = """
openInference:
  mapping: rows
  inputs:
    - {name: x, datatype: FP32, shape: [-1, 2]}
  outputs:
    - {name: doubled, datatype: FP32, shape: [-1, 2]}
"""

# Adds up the numbers of each sequence; a start begins at 0.
SUMS = """
class Sums:
    def initialize(self, context):
        self.sums = {}

    def handle(self, data, context):
        return [self.add(float(row["body"]), index, context) for index, row in enumerate(data)]

    def add(self, number, index, context):
        id = context.get_sequence_id(index)
        if context.get_request_header(index, context.header_key_sequence_start) == "true":
            self.sums[id] = 0
        self.sums[id] = self.sums.get(id, 0) + number
        if context.get_request_header(index, context.header_key_sequence_end) == "true":
            context.set_response_header(index, context.header_key_sequence_end, id)
        return self.sums[id]
"""
SUMS_CONFIG = """
sequenceBatching: true
maxNumSequence: 2
sequenceMaxIdleMSec: 600000
openInference:
  mapping: rows
  inputs:
    - {name: x, datatype: FP32, shape: [-1]}
  outputs:
    - {name: sum, datatype: FP64, shape: [-1]}
"""
# Two sequences side by side and a third one, for which there is room because one of these has ended: what a request
# says of its sequence, and the sum it is told, where each request adds 1.
SUMMED: list[tuple[dict[str, Any], int]] = [
    ({"sequence_id": 7, "sequence_start": True}, 1),
    ({"sequence_id": "text", "sequence_start": True}, 1),
    ({"sequence_id": 7}, 2),
    ({"sequence_id": 7, "sequence_end": True}, 3),
    ({"sequence_id": 8, "sequence_start": True}, 1),
    ({"sequence_id": "text"}, 2),
    ({"sequence_id": 8, "sequence_end": True}, 2),
]

# Counts what it got: fit for the envelopes of KServe. It describes itself too.
SIZES = """
def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "describe") == "True":
        return [{"counts": "characters"}]
    return [len(str(entry)) for entry in data]
"""

# Adds up what is flat: inputs of version 2, as its envelope gives them.
TOTALS = """
def handle(data, context):
    return None if data is None else [sum(entry["data"]) for entry in data]
"""

# Never gets there.
BROKEN = """
def handle(data, context):
    if data is None:
        raise RuntimeError("no weights")
    return data
"""

# Sends three pieces before its answer, each a response of the protocol.
COUNTING = """
from ts.handler_utils.utils import send_intermediate_predict_response


def answer(number):
    output = {"name": "n", "datatype": "INT32", "shape": [1], "data": [number]}
    return {"model_name": "counting", "model_version": "1.0", "outputs": [output]}


def handle(data, context):
    if data is None:
        return None
    for number in range(3):
        send_intermediate_predict_response([answer(number)], context.request_ids, "", 200, context)
    return [answer(3)]
"""


def program() -> Path:
    """The server under test, which is in another environment than the clients."""
    return Path(os.environ.get(PROGRAM, MODELSERVER))


def serve(directory: Path, archives: Mapping[str, Mapping[str, Any]], **options: Any) -> Iterator[ServerProcess]:
    """A server with these models, each with one ready worker; `archives`: what `pack` is told of each."""
    server = ServerProcess(
        directory,
        models=[f"{name}={name}.mar" for name in archives],
        program=program(),
        **options,
    )
    for name, archive in archives.items():
        pack(server.store, name, **archive)
    with server:
        for name in archives:
            eventually(lambda name=name: server.ready_workers(name))  # type: ignore[misc]
        yield server
