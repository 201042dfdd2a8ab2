"""Servers for the gRPC contract: models that tell what reached them or do as they are told, and clients with stubs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc

from contract.server import TORCHSERVE, ContractServer, ReferenceServer
from harness.archives import pack
from harness.server import eventually
from harness.stubs import message, module

PATIENCE = 60.0  # seconds for any answer
CLASS = "org.pytorch.serve."
FAILED = f"Prediction failed\n{CLASS}http.InternalServerException"

# Tells the row, each value with its type, and the headers; does what the input `do` says.
ORACLE = """
import json
import os
import time
from pathlib import Path

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException


def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "describe") == "True":
        return [{"described": True}]
    return [obey(index, row, context) for index, row in enumerate(data)]


def obey(index, row, context):
    do = bytes(row.get("do", b"")).decode()
    with (Path(os.environ["CONTRACT_RECORD"]) / "oracle.calls").open("a") as record:
        record.write(f"{do} {bytes(row.get('data', b'')).decode('latin-1')[:20]}\\n")
    word, _, rest = do.partition(" ")
    if word == "raise":
        raise ValueError("no")
    if word == "code":
        raise PredictionException("told so", int(rest))
    if word == "status":
        context.set_response_status(int(rest), "", idx=index)
        return "with a status"
    if word == "exit":
        os._exit(1)
    if word == "pieces":
        for number in range(int(rest)):
            send_intermediate_predict_response(
                [f"part{number}"], context.request_ids, "Intermediate Prediction success", 200, context
            )
        return "last"
    if word == "pieces-then-raise":
        send_intermediate_predict_response(
            ["part0"], context.request_ids, "Intermediate Prediction success", 200, context
        )
        raise ValueError("no")
    if word == "wait":
        while not (Path(os.environ["CONTRACT_RECORD"]) / f"{rest}.gate").exists():
            time.sleep(0.01)
    if word == "result":
        if rest == "tensor":
            import torch

            return torch.ones(2)
        return {
            "dict": {"a": [1, "\\u00e9"]}, "str": "\\u00e9", "bytes": b"\\x00\\xff", "none": None, "object": object(),
        }[rest]
    if word == "echo":
        return bytes(row["data"])
    if word == "size":
        return b"x" * int(rest)
    return {
        "row": {name: [type(value).__name__, bytes(value).decode("latin-1")] for name, value in row.items()},
        "headers": context.get_all_request_header(index),
        "sequence": context.get_sequence_id(index),
        "id": context.get_request_id(index),
        "pid": os.getpid(),
    }
"""


class GrpcServer:
    """A started server, with one worker of the model `oracle` as a rule, and channels to both of its gRPC ports."""

    def __init__(self, server: ContractServer, stack: ExitStack) -> None:
        self.server = server
        self._stack = stack

    def target(self, api: str = "inference") -> str:
        """Address of a port."""
        if TORCHSERVE:
            keys = (self.server.directory / "config.properties").read_text()
            found = re.search(rf"grpc_{api}_port=(\d+)", keys)
            assert found
            return f"127.0.0.1:{found[1]}"
        return self.server.grpc_target(api)

    def channel(self, api: str = "inference", **options: Any) -> grpc.Channel:
        """A new connection to a port."""
        settings = {"grpc.max_receive_message_length": -1, "grpc.use_local_subchannel_pool": 1, **options}
        return self._stack.enter_context(grpc.insecure_channel(self.target(api), list(settings.items())))

    def inference(self, channel: grpc.Channel | None = None) -> Any:
        """A stub."""
        return module("inference_pb2_grpc").InferenceAPIsServiceStub(channel or self.channel())

    def management(self, channel: grpc.Channel | None = None) -> Any:
        """A stub."""
        return module("management_pb2_grpc").ManagementAPIsServiceStub(channel or self.channel("management"))

    def predict(self, model: str = "oracle", **inputs: bytes) -> bytes:
        """One prediction."""
        wanted = message("PredictionsRequest", model_name=model, input=inputs)
        prediction: bytes = self.inference().Predictions(wanted, timeout=PATIENCE).prediction
        return prediction

    def look(self, **inputs: bytes) -> dict[str, Any]:
        """What the oracle tells of a request."""
        told: dict[str, Any] = json.loads(self.predict("oracle", **inputs))
        return told

    def pid(self) -> int:
        """Of the oracle's worker, from a good call."""
        pid: int = self.look()["pid"]
        return pid

    def manage(self, method: str, message_name: str, **fields: Any) -> str:
        """One management call; the text of its answer."""
        text: str = getattr(self.management(), method)(message(message_name, **fields), timeout=PATIENCE).msg
        return text

    def open(self, gate: str) -> None:
        """Let handlers pass that wait at this gate."""
        self.server.open(gate)

    def await_call(self, text: str) -> None:
        """Return when the oracle has been given this order."""
        record = self.server.record / "oracle.calls"
        eventually(lambda: record.exists() and text in record.read_text())

    def access_lines(self, method: str) -> list[str]:
        """Lines of the access log about a method."""
        lines = (self.server.directory / "logs" / "access_log.log").read_text().splitlines()
        return [line for line in lines if f"/{method} HTTP/2.0" in line]


def request(model: str = "oracle", version: str = "", sequence: str | None = None, **inputs: bytes) -> Any:
    """A `PredictionsRequest`."""
    return message("PredictionsRequest", model_name=model, model_version=version, sequence_id=sequence, input=inputs)


@contextmanager
def refused(code: grpc.StatusCode, details: str | None = None) -> Iterator[None]:
    """The block must fail with this status."""
    try:
        yield
    except grpc.RpcError as error:
        assert (error.code(), error.details() if details is not None else None) == (code, details), error
    else:
        raise AssertionError(f"not refused with {code}")


def unstarted(directory: Path, config: Mapping[str, Any] | None = None) -> ContractServer:
    """A server of the kind under test that is not started yet."""
    kind: Any = ReferenceServer if TORCHSERVE else ContractServer
    server: ContractServer = kind(directory, config=config)
    return server


def start_grpc(
    stack: ExitStack,
    directory: Path,
    config: Mapping[str, Any] | None = None,
    *,
    without: Sequence[str] = (),
    oracle: bool = True,
) -> GrpcServer:
    """A started server of the kind under test, `without` some of its usual flags."""
    server = unstarted(directory, config)
    for flag in without:
        server.command.remove(flag)
    served = GrpcServer(stack.enter_context(server), stack)
    if oracle:
        pack(server.store, "oracle", ORACLE)
        answer = server.register("oracle.mar")
        assert answer.status_code == 200, answer.text
    return served
