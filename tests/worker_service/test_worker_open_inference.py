"""Requests of KServe's protocols in a worker: what handlers get for them, and clients for the results."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workshop import KeepingChannel, batch, load, request, write_model

from harness.stubs import message, module
from modelserver.wire.frames import (
    INFER,
    INFER_EXPLAIN,
    KSERVE_EXPLAIN,
    KSERVE_PREDICT,
    PROTOBUF,
    TORCHSERVE_PROTOBUF,
    OpenInference,
    Part,
    Replies,
    Reply,
    Request,
    TensorSpec,
)
from modelserver.worker.service import Service

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other things run beside

Pairs = list[tuple[str, str]]
JSON_TYPE: Pairs = [("content-type", "application/json")]
LENGTH = b"Inference-Header-Content-Length"

# Says what it was given: for each row the text of its body, as the output `seen`.
WITNESS = """
def handle(data, context):
    if data is None:
        return None
    assert len(context.request_ids) == len(context.request_processor)
    kind = context.get_request_header(0, "body")
    seen = [[type(row["body"]).__name__, repr(row["body"]), str(kind)] for row in data]
    return [{"outputs": [{"name": "seen", "datatype": "BYTES", "shape": [3], "data": row}]} for row in seen]
"""

# Answers with what it is told to, an expression.
ORACLE = """
import numpy as np, torch

def handle(data, context):
    return None if data is None else [eval(row["body"]["parameters"]["answer"]) for row in data]
"""

DOUBLE = """
def handle(data, context):
    return None if data is None else [row["body"] * 2 for row in data]
"""


def infer(
    document: Any, tail: bytes | None = None, id: str = "r0", headers: Any = (), mime: str = "application/json"
) -> Request:
    """In JSON; with a tail, also an empty one, in the binary form."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    if tail is None:
        return request(text, mime, id=id, headers=headers, extra={"explain": "False"})
    length = [(LENGTH, str(len(text)).encode()), *headers]
    return request(text + tail, "application/octet-stream", id=id, headers=length, extra={"explain": "False"})


def protobuf(sent: Any, id: str = "r0", mime: str = PROTOBUF) -> Request:
    return Request(id, [Part("body", mime, sent.SerializeToString())], [], {})


def run(service: Service, *requests: Request, kind: int = INFER) -> Replies:
    return service.handle(batch(*requests, kind=kind))


def only(service: Service, sent: Request, kind: int = INFER) -> Reply:
    """The reply to a request that is served."""
    replies = run(service, sent, kind=kind)
    assert (replies.code, replies.failed) == (200, []), replies
    (reply,) = replies.replies
    return reply


def refused(service: Service, sent: Request) -> tuple[int, str]:
    """Status and message of a request that fails alone."""
    replies = run(service, sent)
    assert (replies.code, replies.failed) == (200, [0]), replies
    return replies.replies[0].status, replies.replies[0].body.decode()


def seen(reply: Reply) -> Any:
    """What a witness says."""
    (output,) = json.loads(reply.body)["outputs"]
    return output["data"]


def answer(reply: Reply) -> Any:
    return module("grpc_predict_v2_pb2").ModelInferResponse.FromString(reply.body)


def spec(name: str, datatype: str, *shape: int, optional: bool = False) -> TensorSpec:
    return TensorSpec(name, datatype, shape, optional)


ROWS = OpenInference(rows=True)
V2 = {"inputs": [{"name": "x", "datatype": "INT32", "shape": [1, 2], "data": [3, 4]}]}
NUMBERS = np.array([3, 4], np.int32).tobytes()
V2_BINARY = {"inputs": [{"name": "x", "datatype": "INT32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]}


class TestWithoutTensors:
    """Answers are labelled, and that is all."""

    @pytest.mark.parametrize("kind", [KSERVE_PREDICT, KSERVE_EXPLAIN, INFER, INFER_EXPLAIN])
    @pytest.mark.parametrize(
        ("result", "body", "headers"),
        [
            ("{'a': 1}", b'{\n  "a": 1\n}', JSON_TYPE),
            ("[1]", b"[\n  1\n]", JSON_TYPE),
            ("None", b"null", JSON_TYPE),
            ("'text'", b"text", []),
            ("b'bytes'", b"bytes", []),
            ("bytearray(b'ba')", b"ba", []),
        ],
    )
    def test_only_json_is_labelled(self, tmp_path: Path, kind: int, result: str, body: bytes, headers: Pairs) -> None:
        service = load(tmp_path, f"def handle(data, context):\n    return data and [{result}]\n")
        reply = only(service, infer({}), kind)
        assert (reply.body, reply.headers) == (body, headers)

    def test_tensors_of_torch_are_not_json(self, tmp_path: Path) -> None:
        service = load(tmp_path, "import torch\ndef handle(data, context):\n    return data and [torch.ones(1)]\n")
        assert only(service, infer({})).headers == []

    def test_what_the_handler_says_of_its_answer_counts(self, tmp_path: Path) -> None:
        source = """
        def handle(data, context):
            if data is None:
                return None
            context.set_response_content_type(0, "text/x")
            context.set_response_header(1, "X-A", "b")
            return [{}, {}]
        """
        replies = run(load(tmp_path, source), infer({}, id="a"), infer({}, id="b"), kind=KSERVE_PREDICT)
        assert [reply.headers for reply in replies.replies] == [
            [("content-type", "text/x")],
            [("X-A", "b"), *JSON_TYPE],
        ]

    @pytest.mark.parametrize(("envelope", "headers"), [("json", JSON_TYPE), ("kserve", JSON_TYPE), ("body", [])])
    def test_envelopes(self, tmp_path: Path, envelope: str, headers: Pairs) -> None:
        source = "def handle(data, context):\n    return data and ['one'] * len(data)\n"
        service = load(tmp_path, source, envelope=envelope)
        assert only(service, infer({"instances": [1]}), KSERVE_PREDICT).headers == headers

    def test_a_handler_that_fails_fails_the_batch(self, tmp_path: Path) -> None:
        service = load(tmp_path, "def handle(data, context):\n    return data and [1]\n")
        replies = run(service, infer({}), infer({}), kind=KSERVE_PREDICT)
        assert (replies.code, replies.message, replies.failed) == (503, "number of batch response mismatched", [])


class TestDocuments:
    """The handler gets the request as TorchServe gives it."""

    @pytest.mark.parametrize(("mime", "type"), [("application/json", "dict"), ("", "bytearray"), ("text/plain", "str")])
    def test_plain_json_is_untouched(self, tmp_path: Path, mime: str, type: str) -> None:
        reply = only(load(tmp_path, WITNESS), infer(b'{"inputs": "whatever"}', mime=mime))
        assert (seen(reply)[0], reply.headers) == (type, JSON_TYPE)
        assert seen(reply)[2] == str({"content-type": mime})

    def test_binary_tensors_are_filled_in(self, tmp_path: Path) -> None:
        reply = only(load(tmp_path, WITNESS), infer(V2_BINARY, NUMBERS))
        kind, text, header = seen(reply)
        assert (kind, header) == ("dict", "{'content-type': 'application/json'}")
        expected = {**V2["inputs"][0], "parameters": {}}
        assert eval(text) == {"inputs": [expected]}

    def test_messages(self, tmp_path: Path) -> None:
        sent = message("ModelInferRequest", model_name="m", id="42")
        sent.inputs.add(name="in0", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend([1, 2.5, 0.1])
        reply = only(load(tmp_path, WITNESS), protobuf(sent))
        kind, text, header = (element.decode() for element in answer(reply).outputs[0].contents.bytes_contents)
        assert (kind, header) == ("dict", "{'content-type': 'application/json'}")
        entry = {"name": "in0", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 2.5, 0.1]}
        assert eval(text) == {"model_name": "m", "id": "42", "inputs": [entry]}

    def test_handlers_that_decode_themselves(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")
        service = load(tmp_path, WITNESS)
        kind, text, _ = seen(only(service, infer(V2_BINARY, NUMBERS)))
        assert kind == "bytearray"
        assert json.loads(eval(text, {"bytearray": bytes}))["inputs"][0]["data"] == [3, 4]
        assert seen(only(service, infer(V2)))[0] == "bytearray"

    def test_forms_are_rows_as_ever(self, tmp_path: Path) -> None:
        source = "def handle(data, context):\n    return data and [str(sorted(row.items())) for row in data]\n"
        sent = Request("r", [Part("a", "", b"1"), Part("data", "text/plain", b"2")], [], {})
        assert only(load(tmp_path, source), sent).body == b"[('a', bytearray(b'1')), ('data', '2')]"

    def test_an_envelope_gets_the_document(self, tmp_path: Path) -> None:
        write_model(tmp_path, {}, modelVersion="1.0")
        source = "def handle(data, context):\n    return data and [row['data'] for row in data]\n"
        service = load(tmp_path, source, envelope="kservev2")
        output = {"name": "x", "datatype": "INT64", "data": [3, 4], "shape": [2]}
        for sent in (infer(V2), infer(V2_BINARY, NUMBERS)):
            assert json.loads(only(service, sent).body)["outputs"] == [output]
        raw = message("ModelInferRequest", raw_input_contents=[NUMBERS])
        raw.inputs.add(name="x", datatype="INT32", shape=[1, 2])
        response = answer(only(service, protobuf(raw)))
        assert (response.id, response.model_name, response.outputs[0].datatype) == ("r0", "m", "INT64")
        assert response.raw_output_contents[0] == np.array([3, 4], np.int64).tobytes()


OUTPUTS = (
    "{'id': 'h', 'model_version': 3, 'more': [1], 'outputs': ["
    "{'name': 'a', 'datatype': 'FP32', 'shape': [2, 1], 'data': [[0.5], [0.1]]}, "
    "{'name': 'b', 'datatype': 'BYTES', 'shape': [2], 'data': ['x', 'é'], 'parameters': {'p': 1}}]}"
)


class TestAnswers:
    """Documents in the client's form."""

    def ask(self, folder: Path, told: str, **members: Any) -> Reply:
        parameters = {"answer": told, **members.pop("parameters", {})}
        return only(load(folder, ORACLE), infer({"inputs": [], "parameters": parameters, **members}, b""))

    def test_json(self, tmp_path: Path) -> None:
        reply = self.ask(tmp_path, OUTPUTS)
        assert reply.headers == JSON_TYPE
        assert json.loads(reply.body) == {
            "id": "h",
            "model_name": "m",
            "model_version": "3",
            "more": [1],
            "outputs": [
                {"name": "a", "datatype": "FP32", "shape": [2, 1], "data": [0.5, 0.1]},
                {"name": "b", "datatype": "BYTES", "shape": [2], "parameters": {"p": 1}, "data": ["x", "é"]},
            ],
        }

    def test_bytes(self, tmp_path: Path) -> None:
        reply = self.ask(tmp_path, OUTPUTS, parameters={"binary_data_output": True})
        headers = dict(reply.headers)
        assert headers["content-type"] == "application/octet-stream"
        length = int(headers["inference-header-content-length"])
        document, tail = json.loads(reply.body[:length]), reply.body[length:]
        assert [output["parameters"]["binary_data_size"] for output in document["outputs"]] == [8, 11]
        assert "data" not in document["outputs"][0]
        assert tail == np.array([0.5, 0.1], "<f4").tobytes() + b"\x01\0\0\0x\x02\0\0\0\xc3\xa9"

    def test_some_of_them(self, tmp_path: Path) -> None:
        wanted = [{"name": "b"}, {"name": "a", "parameters": {"binary_data": False}}]
        reply = self.ask(tmp_path, OUTPUTS, parameters={"binary_data_output": True}, outputs=wanted)
        length = int(dict(reply.headers)["inference-header-content-length"])
        names = [(output["name"], "data" in output) for output in json.loads(reply.body[:length])["outputs"]]
        assert names == [("b", False), ("a", True)]
        assert len(reply.body) - length == 11
        (only_a,) = json.loads(self.ask(tmp_path, OUTPUTS, outputs=[{"name": "a"}]).body)["outputs"]
        assert only_a["name"] == "a"

    def test_all_of_them_if_one_is_unknown(self, tmp_path: Path) -> None:
        reply = self.ask(tmp_path, OUTPUTS, outputs=[{"name": "b"}, {"name": "nope"}])
        assert [output["name"] for output in json.loads(reply.body)["outputs"]] == ["a", "b"]

    @pytest.mark.parametrize("mime", ["application/json", "", "text/plain"])
    def test_outputs_of_plain_json_in_bytes(self, tmp_path: Path, mime: str) -> None:
        """As clients of Triton ask for them."""
        source = f"def handle(data, context):\n    return data and [{OUTPUTS}]\n"
        sent = {**V2, "parameters": {"binary_data_output": True}}
        reply = only(load(tmp_path, source), infer(sent, mime=mime))
        assert "inference-header-content-length" in dict(reply.headers)

    @pytest.mark.parametrize("body", [b'["binary_data"]', b'"\\"binary_data"', b'{"a": "binary_data", "outputs": 5}'])
    def test_json_that_is_no_request_is_the_handlers_business(self, tmp_path: Path, body: bytes) -> None:
        source = "import json\ndef handle(data, context):\n    return data and [json.dumps(data[0]['body'])]\n"
        reply = only(load(tmp_path, source), infer(body))
        assert (reply.status, json.loads(reply.body)) == (200, json.loads(body))

    @pytest.mark.parametrize(
        "told",
        [
            "{'outputs': 'none'}",
            "{'outputs': [{'name': 'a', 'datatype': 'FP32', 'shape': [3], 'data': [1]}]}",
            "{'outputs': [{'name': 'a', 'datatype': 'FP31', 'shape': [1], 'data': [1]}]}",
            "{'outputs': [{'name': 'a', 'datatype': ['FP32'], 'shape': [1], 'data': [1]}]}",
            "{'outputs': [{'datatype': 'FP32', 'shape': [1], 'data': [1]}]}",
            "[1]",
        ],
    )
    def test_what_is_no_response_is_sent_as_it_is(self, tmp_path: Path, told: str) -> None:
        reply = self.ask(tmp_path, told, parameters={"binary_data_output": True})
        assert (reply.body, reply.headers) == (json.dumps(eval(told), indent=2).encode(), JSON_TYPE)

    def test_text_of_a_response_is_one(self, tmp_path: Path) -> None:
        reply = self.ask(tmp_path, f"__import__('json').dumps({OUTPUTS})", parameters={"binary_data_output": True})
        assert "inference-header-content-length" in dict(reply.headers)
        reply = self.ask(tmp_path, "'only text'", parameters={"binary_data_output": True})
        assert (reply.body, reply.headers) == (b"only text", [])

    @pytest.mark.parametrize(
        ("datatype", "data", "expected"),
        [
            ("FP32", "np.arange(2, dtype=np.float64)", [0.0, 1.0]),
            ("INT8", "[1.0, -1.0]", [1, -1]),
            ("BOOL", "[2, 0]", [True, False]),
            ("FP16", "torch.tensor([0.5, 1])", [0.5, 1.0]),
            ("BF16", "torch.tensor([0.5, 1], dtype=torch.bfloat16)", [0.5, 1.0]),
            ("UINT64", "[2**64 - 1, 0]", [2**64 - 1, 0]),
            ("BYTES", "[b'ab', 3]", ["ab", 3]),
        ],
    )
    def test_data_of_other_kinds(self, tmp_path: Path, datatype: str, data: str, expected: list[Any]) -> None:
        told = f"{{'outputs': [{{'name': 'a', 'datatype': '{datatype}', 'shape': [2], 'data': {data}}}]}}"
        (output,) = json.loads(self.ask(tmp_path, told).body)["outputs"]
        assert output["data"] == expected

    @pytest.mark.parametrize(
        ("told", "text"),
        [
            ("'text'", "handler returned no Open Inference response, but 'text'"),
            ("[1]", "handler returned no Open Inference response, but [1]"),
            ("{}", "handler returned a response without a list 'outputs'"),
            ("{'outputs': [{}]}", "output 0 has no name"),
            ("{'outputs': [{'name': 'a', 'datatype': 'X'}]}", "output 'a': unknown datatype 'X'"),
            (
                "{'outputs': [{'name': 'a', 'datatype': 'INT8', 'shape': [1], 'data': [300]}]}",
                "output 'a': data cannot be INT8",
            ),
            (
                "{'outputs': [{'name': 'a', 'datatype': 'INT8', 'shape': [2], 'data': [3]}]}",
                "output 'a': shape [2] does not fit its 1 elements",
            ),
        ],
    )
    def test_messages_need_a_response(self, tmp_path: Path, told: str, text: str) -> None:
        sent = message("ModelInferRequest", parameters={"answer": message("InferParameter", string_param=told)})
        good = message("ModelInferRequest", parameters={"answer": message("InferParameter", string_param=OUTPUTS)})
        replies = run(load(tmp_path, ORACLE), protobuf(good, "a"), protobuf(sent, "b"))
        assert (replies.code, replies.failed) == (200, [1])
        first, second = replies.replies
        assert (second.status, second.body.decode()[: len(text)]) == (500, text)
        assert (answer(first).id, answer(first).model_version, len(answer(first).outputs)) == ("h", "3", 2)

    def test_torchserves_own_service_keeps_quotes(self, tmp_path: Path) -> None:
        sent = message("ModelInferRequest", parameters={"answer": message("InferParameter", string_param=OUTPUTS)})
        service = load(tmp_path, ORACLE)
        texts = [
            list(answer(only(service, protobuf(sent, mime=mime))).outputs[1].contents.bytes_contents)
            for mime in (PROTOBUF, TORCHSERVE_PROTOBUF)
        ]
        assert texts == [[b"x", "é".encode()], [b'"x"', '"é"'.encode()]]


class TestRows:
    """Handlers that know nothing of the protocol."""

    def test_one_input_is_the_body(self, tmp_path: Path) -> None:
        service = load(tmp_path, DOUBLE, open_inference=ROWS, model_version="2.0")
        expected = {
            "id": "r0",
            "model_name": "m",
            "model_version": "2.0",
            "outputs": [{"name": "output-0", "datatype": "INT32", "shape": [1, 2], "data": [6, 8]}],
        }
        for sent in (infer(V2), infer(V2_BINARY, NUMBERS), infer(V2, mime="")):
            reply = only(service, sent)
            assert (json.loads(reply.body), reply.headers) == (expected, JSON_TYPE)
        raw = message("ModelInferRequest", id="7", raw_input_contents=[NUMBERS])
        raw.inputs.add(name="x", datatype="INT32", shape=[1, 2])
        response = answer(only(service, protobuf(raw)))
        assert (response.id, response.model_version, response.outputs[0].name) == ("7", "2.0", "output-0")
        assert response.raw_output_contents[0] == np.array([6, 8], np.int32).tobytes()

    def test_the_first_dimension_counts_the_rows_of_all_requests(self, tmp_path: Path) -> None:
        source = """
        def handle(data, context):
            if data is None:
                return None
            assert len(context.request_ids) == 2
            return [row["body"].sum() + len(data) for row in data]
        """
        service = load(tmp_path, source, open_inference=ROWS)
        two = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]}
        replies = run(service, infer(two, id="a"), infer(V2, id="b"))
        outputs = [json.loads(reply.body)["outputs"][0] for reply in replies.replies]
        assert [output["data"] for output in outputs] == [[6.0, 10.0], [10]]
        assert [output["shape"] for output in outputs] == [[2], [1]]

    def test_several_inputs_have_their_names(self, tmp_path: Path) -> None:
        source = """
        def handle(data, context):
            return data and [f"{row['text']}:{row['n']}:{row['v'].tolist()}" for row in data]
        """
        inputs = [
            {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
            {"name": "n", "datatype": "INT8", "shape": [2], "data": [1, 2]},
            {"name": "v", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]},
        ]
        reply = only(load(tmp_path, source, open_inference=ROWS), infer({"inputs": inputs}))
        (output,) = json.loads(reply.body)["outputs"]
        assert (output["datatype"], output["data"]) == ("BYTES", ["a:1:[1.0, 2.0]", "b:2:[3.0, 4.0]"])

    def test_text_is_text_in_json_and_bytes_elsewhere(self, tmp_path: Path) -> None:
        source = "def handle(data, context):\n    return data and [type(row['body']).__name__ for row in data]\n"
        service = load(tmp_path, source, open_inference=ROWS)
        text = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}
        assert json.loads(only(service, infer(text)).body)["outputs"][0]["data"] == ["str"]
        raw = {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}]}
        assert json.loads(only(service, infer(raw, b"\1\0\0\0a")).body)["outputs"][0]["data"] == ["bytes"]

    def test_the_default_image_handler(self, tmp_path: Path) -> None:
        """Takes what it gets for a tensor, without a copy that torch would warn of."""
        source = """
        import torch
        from ts.torch_handler.vision_handler import VisionHandler

        class Means(VisionHandler):
            def initialize(self, context):
                self.context, self.device = context, torch.device("cpu")
            def image_processing(self, image):
                raise AssertionError("tensors are no images")
            def inference(self, data):
                return data.mean(dim=(1, 2, 3))
        """
        images = np.stack([np.full((3, 4, 4), value, np.float32) for value in (1, 2)])
        size = {"binary_data_size": images.nbytes}
        sent = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3, 4, 4], "parameters": size}]}
        reply = only(load(tmp_path, source, open_inference=ROWS), infer(sent, images.tobytes()))
        (output,) = json.loads(reply.body)["outputs"]
        assert (output["datatype"], output["shape"], output["data"]) == ("FP64", [2], [1.0, 2.0])

    @pytest.mark.parametrize(
        ("result", "datatype", "shape", "data"),
        [
            ("torch.tensor([1., 2.])", "FP32", [1, 2], [1.0, 2.0]),
            ("torch.tensor([1., 2.], dtype=torch.bfloat16)", "BF16", [1, 2], [1.0, 2.0]),
            ("torch.tensor([1.], requires_grad=True)", "FP32", [1, 1], [1.0]),
            ("np.float16(0.5)", "FP16", [1], [0.5]),
            ("3", "INT64", [1], [3]),
            ("True", "BOOL", [1], [True]),
            ("[0.5, 1]", "FP64", [1, 2], [0.5, 1.0]),
            ("{'cat': 0.5}", "BYTES", [1], ['{"cat":0.5}']),
            ("{'cat': np.float32(0.5)}", "BYTES", [1], ['{"cat":0.5}']),
            ("b'ab'", "BYTES", [1], ["ab"]),
            ("['a', 'b']", "BYTES", [1, 2], ["a", "b"]),
            ("None", "BYTES", [1], ["null"]),
        ],
    )
    def test_results(self, tmp_path: Path, result: str, datatype: str, shape: list[int], data: list[Any]) -> None:
        source = f"import numpy as np, torch\ndef handle(data, context):\n    return data and [{result}]\n"
        (output,) = json.loads(only(load(tmp_path, source, open_inference=ROWS), infer(V2)).body)["outputs"]
        assert (output["datatype"], output["shape"], output["data"]) == (datatype, shape, data)

    def test_results_of_several_shapes_are_text(self, tmp_path: Path) -> None:
        source = "def handle(data, context):\n    return data and [[1], [2, 3]]\n"
        two = {"inputs": [{"name": "x", "datatype": "INT8", "shape": [2], "data": [1, 2]}]}
        (output,) = json.loads(only(load(tmp_path, source, open_inference=ROWS), infer(two)).body)["outputs"]
        assert (output["datatype"], output["data"]) == ("BYTES", ["[1]", "[2,3]"])

    @pytest.mark.parametrize("result", ["{'label': 'cat', 'score': 1}", "('cat', 1)", "['cat', 1]"])
    def test_declared_outputs(self, tmp_path: Path, result: str) -> None:
        declared = OpenInference(True, (), (spec("label", "BYTES", -1), spec("score", "FP32", -1)))
        source = f"def handle(data, context):\n    return data and [{result}]\n"
        service = load(tmp_path, source, open_inference=declared)
        label, score = json.loads(only(service, infer(V2)).body)["outputs"]
        assert label == {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["cat"]}
        assert score == {"name": "score", "datatype": "FP32", "shape": [1], "data": [1.0]}

    @pytest.mark.parametrize("result", ["[1, 2]", "{'out': [1, 2]}"])
    def test_one_declared_output(self, tmp_path: Path, result: str) -> None:
        declared = OpenInference(True, (), (spec("out", "FP16", -1, 2),))
        source = f"def handle(data, context):\n    return data and [{result}]\n"
        (output,) = json.loads(only(load(tmp_path, source, open_inference=declared), infer(V2)).body)["outputs"]
        assert output == {"name": "out", "datatype": "FP16", "shape": [1, 2], "data": [1.0, 2.0]}

    @pytest.mark.parametrize(
        ("result", "shape", "text"),
        [
            ("[1, 2]", (-1, 3), "output 'out': the model declares shape [-1, 3], got [1, 2]"),
            ("'text'", (-1,), "output 'out': data cannot be FP32: "),
            ("object()", (-1,), "output 'out': data cannot be FP32: "),
        ],
    )
    def test_results_that_are_not_as_declared(
        self, tmp_path: Path, result: str, shape: tuple[int, ...], text: str
    ) -> None:
        declared = OpenInference(True, (), (spec("out", "FP32", *shape),))
        source = f"def handle(data, context):\n    return data and [{result}]\n"
        status, said = refused(load(tmp_path, source, open_inference=declared), infer(V2))
        assert (status, said[: len(text)]) == (500, text)

    @pytest.mark.parametrize(
        ("result", "text"),
        [
            ("{'label': 'cat'}", "handler returned a result without the declared output 'score'"),
            ("['cat']", "handler returned a result without the declared output 'score'"),
            ("5", "handler returned a result without the declared output 'label'"),
            ("'cat'", "handler returned a result without the declared output 'label'"),
            ("b'cat'", "handler returned a result without the declared output 'label'"),
        ],
    )
    def test_results_without_a_declared_output(self, tmp_path: Path, result: str, text: str) -> None:
        declared = OpenInference(True, (), (spec("label", "BYTES", -1), spec("score", "FP32", -1)))
        source = f"def handle(data, context):\n    return data and [{result}]\n"
        assert refused(load(tmp_path, source, open_inference=declared), infer(V2)) == (500, text)

    def test_no_rows(self, tmp_path: Path) -> None:
        """The handler is not called."""
        source = "def handle(data, context):\n    return None if data is None else data[0]\n"
        none = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 3], "data": []}]}
        declared = OpenInference(True, (), (spec("out", "INT8", -1, 4),))
        (output,) = json.loads(only(load(tmp_path, source, open_inference=declared), infer(none)).body)["outputs"]
        assert output == {"name": "out", "datatype": "INT8", "shape": [0, 4], "data": []}

    @pytest.mark.parametrize(
        ("inputs", "text"),
        [
            ([], "request has no inputs"),
            ([{"name": "x", "datatype": "FP32", "shape": [], "data": [1]}], "the shape needs a first dimension"),
            ([{"name": "x", "datatype": "FP31", "shape": [1], "data": [1]}], "input 'x': unknown datatype 'FP31'"),
            ([{"name": "x", "datatype": "INT8", "shape": [10001], "data": [1] * 10001}], "at most 10000 are possible"),
            (
                [
                    {"name": "x", "datatype": "INT8", "shape": [1], "data": [1]},
                    {"name": "y", "datatype": "INT8", "shape": [2], "data": [1, 2]},
                ],
                "input 'y' has 2 rows, input 'x' has 1",
            ),
            (
                [{"name": "x", "datatype": "INT8", "shape": [1], "data": [each]} for each in (1, 2)],
                "inputs have the same name: 'x', 'x'",
            ),
            ([{"name": "x", "datatype": "INT8", "shape": [2**62, 0], "data": []}], "at most 10000 are possible"),
            ([{"name": "x", "datatype": "INT8", "shape": [-1, -1], "data": [1]}], "1 elements do not fill the shape"),
        ],
    )
    def test_requests_without_rows(self, tmp_path: Path, inputs: list[Any], text: str) -> None:
        status, said = refused(load(tmp_path, DOUBLE, open_inference=ROWS), infer({"inputs": inputs}))
        assert status == 400
        assert text in said

    def test_envelopes_are_for_others(self, tmp_path: Path) -> None:
        service = load(tmp_path, DOUBLE, open_inference=ROWS, envelope="kserve")
        assert json.loads(only(service, infer(V2)).body)["outputs"][0]["data"] == [6, 8]

    def test_the_wrong_number_of_results(self, tmp_path: Path) -> None:
        service = load(tmp_path, "def handle(data, context):\n    return data and [1, 2]\n", open_inference=ROWS)
        assert run(service, infer(V2)).message == "number of batch response mismatched"


class TestDeclaredInputs:
    DECLARED = (spec("x", "INT32", -1, 2), spec("y", "BYTES", 1, optional=True))

    @pytest.mark.parametrize("rows", [True, False])
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"name": "z"}, "unknown input 'z': the model has 'x', 'y' (optional)"),
            ({"datatype": "INT8"}, "input 'x': the model takes datatype INT32, got 'INT8'"),
            ({"shape": [2, 1]}, "input 'x': the model takes shape [-1, 2], got [2, 1]"),
            ({"shape": [2]}, "input 'x': the model takes shape [-1, 2], got [2]"),
        ],
    )
    def test_other_inputs_are_refused(self, tmp_path: Path, rows: bool, changes: dict[str, Any], text: str) -> None:
        service = load(tmp_path, WITNESS, open_inference=OpenInference(rows, self.DECLARED))
        assert refused(service, infer({"inputs": [{**V2["inputs"][0], **changes}]})) == (400, text)

    def test_missing_and_doubled_inputs(self, tmp_path: Path) -> None:
        service = load(tmp_path, WITNESS, open_inference=OpenInference(False, self.DECLARED))
        text = "input 'x' is missing: the model has 'x', 'y' (optional)"
        assert refused(service, infer({"inputs": []})) == (400, text)
        assert refused(service, infer({"inputs": V2["inputs"] * 2})) == (400, "input 'x' comes twice")

    def test_the_handler_gets_the_document_all_the_same(self, tmp_path: Path) -> None:
        service = load(tmp_path, WITNESS, open_inference=OpenInference(False, self.DECLARED))
        kind, text, _ = seen(only(service, infer(V2, mime="")))
        assert (kind, eval(text)) == ("dict", V2)

    def test_messages(self, tmp_path: Path) -> None:
        service = load(tmp_path, WITNESS, open_inference=OpenInference(False, self.DECLARED))
        sent = message("ModelInferRequest")
        sent.inputs.add(name="x", datatype="FP32", shape=[0])
        assert refused(service, protobuf(sent)) == (400, "input 'x': the model takes datatype INT32, got 'FP32'")


class TestFailures:
    def test_requests_fail_alone(self, tmp_path: Path) -> None:
        """The handler sees the others, under their own ids; all replies keep their places."""
        source = """
        def handle(data, context):
            if data is None:
                return None
            ids = list(context.request_ids.values())
            for index in range(len(data)):
                context.set_response_header(index, "X-Id", context.get_request_id(index))
            return [{"ids": ids, "length": context.get_request_header(i, "x-i")} for i in range(len(data))]
        """
        sent = [
            infer(V2_BINARY, b"", id="a"),
            infer(V2_BINARY, NUMBERS, id="b", headers=[(b"X-I", b"1")]),
            infer(b"{", b"", id="c"),
            infer(V2_BINARY, NUMBERS, id="d", headers=[(b"X-I", b"3")]),
        ]
        replies = run(load(tmp_path, source), *sent)
        assert (replies.code, replies.failed) == (200, [0, 2])
        assert [reply.index for reply in replies.replies] == [0, 1, 2, 3]
        assert [reply.status for reply in replies.replies] == [400, 200, 400, 200]
        for index, id in ((1, "b"), (3, "d")):
            reply = replies.replies[index]
            assert json.loads(reply.body) == {"ids": ["b", "d"], "length": str(index)}
            assert reply.headers == [("X-Id", id), *JSON_TYPE]

    def test_a_handler_that_fails_takes_only_its_own_along(self, tmp_path: Path) -> None:
        service = load(tmp_path, "def handle(data, context):\n    return data and 1 / 0\n")
        replies = run(service, infer(V2_BINARY, b"", id="a"), infer(V2_BINARY, NUMBERS, id="b"))
        assert (replies.code, replies.message, replies.failed) == (503, "Prediction failed", [0])
        assert [(reply.index, reply.status) for reply in replies.replies] == [(0, 400)]

    def test_nothing_to_ask_the_handler(self, tmp_path: Path) -> None:
        service = load(tmp_path, "def handle(data, context):\n    return data and 1 / 0\n")
        replies = run(service, infer(V2_BINARY, b"", id="a"), infer(b"", b"", id="b"))
        assert (replies.code, replies.failed) == (200, [0, 1])

    def test_a_request_that_is_nested_too_deeply(self, tmp_path: Path) -> None:
        """Whatever stumbles over it: the others are served."""
        service = load(tmp_path, DOUBLE, open_inference=ROWS)
        for depth in (*range(100, 1100, 100), 100_000):
            nested = b"[" * depth + b"1" + b"]" * depth
            text = b'{"inputs": [{"name": "x", "datatype": "INT8", "shape": %b, "data": %b}]}'
            replies = run(
                service, infer(text % (nested, b"1"), id="a"), infer(text % (b"[2]", nested), id="b"), infer(V2)
            )
            assert (replies.code, replies.failed) == (200, [0, 1])
            assert [reply.status for reply in replies.replies] == [400, 400, 200]
            assert max(len(reply.body) for reply in replies.replies[:2]) < 400

    def test_the_log_says_what_was_wrong_with_results(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        service = load(tmp_path, "def handle(data, context):\n    return data and ['text']\n")
        assert refused(service, protobuf(message("ModelInferRequest"), "r7"))[0] == 500
        text = "Unable to answer request r7 in Open Inference: handler returned no Open Inference response, but 'text'"
        assert text in caplog.messages

    @pytest.mark.parametrize("kind", [INFER, KSERVE_PREDICT])
    def test_what_has_no_form_fails_the_batch(self, tmp_path: Path, kind: int) -> None:
        service = load(tmp_path, "def handle(data, context):\n    return data and [object()]\n")
        replies = run(service, infer({}), kind=kind)
        assert (replies.code, replies.message) == (503, "Unsupported model output data type.")

    def test_replies_that_are_too_large(self, tmp_path: Path) -> None:
        service = load(tmp_path, DOUBLE, open_inference=ROWS, max_response_size=50)
        replies = run(service, infer(V2))
        assert (replies.code, replies.failure and replies.failure.cause) == (500, "reply too large")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
INPUTS: st.SearchStrategy[Any] = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["x", "y"]) | SCALARS,
            "datatype": st.sampled_from(["INT8", "FP32", "BF16", "BOOL", "BYTES", "X"]) | SCALARS,
            "shape": st.lists(st.integers(-2, 4), max_size=3) | DOCUMENTS,
            "data": DOCUMENTS,
            "parameters": st.builds(dict, binary_data_size=st.integers(-1, 9) | SCALARS) | SCALARS,
        },
    )
    | SCALARS,
    max_size=3,
)


@pytest.fixture(scope="module", params=["rows", "declared", "request"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Service:
    declared = {"rows": ROWS, "declared": OpenInference(False, TestDeclaredInputs.DECLARED)}
    source = "def handle(data, context):\n    return data and ['text'] * len(data)\n"
    known = declared.get(request.param, OpenInference())
    return load(tmp_path_factory.mktemp("any"), source, open_inference=known)


class TestAnyRequest:
    """Whatever is sent, the batch is answered, and the next one too."""

    def answered(self, service: Service, sent: Request) -> None:
        replies = run(service, sent, infer(V2_BINARY, NUMBERS, id="good"))
        assert replies.code == 200
        assert [reply.index for reply in replies.replies] == [0, 1]
        assert replies.failed in ([], [0])
        assert all(reply.status in (400, 500) for reply in replies.replies if reply.index in replies.failed)
        assert replies.replies[1].status == 200

    @unhurried
    @given(inputs=INPUTS | SCALARS, tail=st.binary(max_size=12), outputs=DOCUMENTS, parameters=DOCUMENTS)
    def test_json(self, service: Service, inputs: Any, tail: bytes, outputs: Any, parameters: Any) -> None:
        self.answered(service, infer({"inputs": inputs, "outputs": outputs, "parameters": parameters}, tail, id="odd"))

    @unhurried
    @given(body=st.binary(max_size=60), length=st.text(max_size=5) | st.integers(0, 60).map(str))
    def test_bytes(self, service: Service, body: bytes, length: str) -> None:
        header = [(LENGTH, length.encode())]
        self.answered(service, request(body, "application/octet-stream", id="odd", headers=header))

    @unhurried
    @given(noise=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=4))
    @pytest.mark.parametrize("mime", [PROTOBUF, TORCHSERVE_PROTOBUF])
    def test_messages(self, service: Service, mime: str, noise: list[tuple[int, int]]) -> None:
        """Of which some bytes are others."""
        sent = message("ModelInferRequest", model_name="m", id="1")
        sent.inputs.add(name="x", datatype="INT32", shape=[1, 2]).contents.int_contents.extend([3, -4])
        sent.inputs.add(name="y", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"abc")
        sent.parameters["p"].string_param = "q"
        data = bytearray(sent.SerializeToString())
        for place, value in noise:
            data[place % len(data)] = value
        self.answered(service, Request("odd", [Part("body", mime, bytes(data))], [], {}))


def zipped(data: bytes) -> bytes:
    """Without the time, so that all workers of pytest see the same tests."""
    return gzip.compress(data, mtime=0)


class TestCompression:
    @pytest.mark.parametrize(
        ("encoding", "compress"),
        [(b"gzip", gzip.compress), (b"Deflate", zlib.compress), (b"x-gzip", gzip.compress), (b"identity", bytes)],
    )
    def test_bodies_are_inflated_first(self, tmp_path: Path, encoding: bytes, compress: Any) -> None:
        sent = infer(V2_BINARY, NUMBERS, headers=[(b"content-encoding", encoding)])
        sent.parts[0].value = compress(sent.parts[0].value)
        reply = only(load(tmp_path, DOUBLE, open_inference=ROWS), sent)
        assert json.loads(reply.body)["outputs"][0]["data"] == [6, 8]

    def test_plain_json_too_and_the_handler_need_not_know(self, tmp_path: Path) -> None:
        source = """
        def handle(data, context):
            return data and [[row["body"], context.get_request_header(0, "content-encoding")] for row in data]
        """
        two_members = gzip.compress(b'{"inputs"') + gzip.compress(b": []}")
        sent = request(two_members, "application/json", headers=[(b"Content-Encoding", b"gzip")])
        assert json.loads(only(load(tmp_path, source), sent).body) == [{"inputs": []}, None]

    @pytest.mark.parametrize(
        ("encoding", "body", "status", "text"),
        [
            (b"gzip", b"nonsense", 400, "Request body is not valid gzip data: "),
            (b"deflate", zlib.compress(b"{}")[:-2], 400, "Request body ends in the middle of its deflate data."),
            (b"br", b"", 400, "Content-Encoding 'br' is not supported: send gzip or deflate."),
            (b"gzip", zipped(bytes(10_001)), 413, "Request body exceeds max_request_size of 10000 bytes once"),
            (b"gzip", zipped(bytes(9_999)) + zipped(b"ab"), 413, "Request body exceeds"),
            (b"gzip", zipped(bytes(50 << 20)), 413, "Request body exceeds"),
            (b"gzip", zipped(b"{}") + b"nothing of the kind", 400, "Request body is not valid gzip data: "),
        ],
    )
    def test_bodies_that_are_refused(
        self, tmp_path: Path, encoding: bytes, body: bytes, status: int, text: str
    ) -> None:
        sent = request(body, "application/json", headers=[(b"content-encoding", encoding)])
        found, said = refused(load(tmp_path, DOUBLE, max_request_size=10_000), sent)
        assert (found, said[: len(text)]) == (status, text)

    def test_a_body_may_be_as_large_as_the_limit(self, tmp_path: Path) -> None:
        body = json.dumps("x" * 9_998).encode()
        sent = request(gzip.compress(body), "application/json", headers=[(b"content-encoding", b"gzip")])
        assert only(load(tmp_path, DOUBLE, max_request_size=10_000), sent).status == 200

    def test_many_members(self, tmp_path: Path) -> None:
        """What lies behind each of them is not copied every time: that would take minutes, and the worker with it."""
        body = zipped(b"") * 100_000 + zipped(b'"x"') + zipped(b"") * 100_000
        sent = request(body, "application/json", headers=[(b"content-encoding", b"gzip")])
        assert only(load(tmp_path, DOUBLE), sent).body == b"xx"


class TestCompressedAnswers:
    LONG = "{'outputs': [{'name': 'a', 'datatype': 'INT64', 'shape': [1000], 'data': [7] * 1000}]}"

    def ask(self, folder: Path, accepted: bytes | None, told: str = LONG, **request: Any) -> Reply:
        sent = {**V2, "parameters": {"answer": told}, **request}
        headers = [] if accepted is None else [(b"Accept-Encoding", accepted)]
        return only(load(folder, ORACLE), infer(sent, headers=headers))

    @pytest.mark.parametrize("accepted", [b"gzip", b"deflate", b" GZIP ", b"x-gzip"])
    def test_who_names_a_coding_gets_it(self, tmp_path: Path, accepted: bytes) -> None:
        reply = self.ask(tmp_path, accepted)
        coding = accepted.strip().lower().decode()
        assert reply.headers == [*JSON_TYPE, ("content-encoding", coding)] and len(reply.body) < 1000
        plain = zlib.decompress(reply.body, 15 if coding == "deflate" else 31)
        assert json.loads(plain)["outputs"][0]["data"] == [7] * 1000

    @pytest.mark.parametrize("accepted", [None, b"", b"gzip, deflate", b"br", b"identity", b"gzip;q=0", b"\xff"])
    def test_others_do_not(self, tmp_path: Path, accepted: bytes | None) -> None:
        """Most libraries name all that they know without being asked to."""
        reply = self.ask(tmp_path, accepted)
        assert reply.headers == JSON_TYPE and json.loads(reply.body)["outputs"][0]["data"] == [7] * 1000

    def test_the_length_of_the_json_is_that_of_the_plain_body(self, tmp_path: Path) -> None:
        told = self.LONG.replace("}]", ", 'parameters': {'p': 1}}]")
        reply = self.ask(tmp_path, b"gzip", told, outputs=[{"name": "a", "parameters": {"binary_data": True}}])
        headers = dict(reply.headers)
        assert headers["content-encoding"] == "gzip" and headers["content-type"] == "application/octet-stream"
        plain = gzip.decompress(reply.body)
        assert plain[int(headers["inference-header-content-length"]) :] == np.full(1000, 7).tobytes()

    @pytest.mark.parametrize("told", ["'short'", "bytes(__import__('random').Random(1).randbytes(5000))"])
    def test_what_would_not_be_smaller_is_left(self, tmp_path: Path, told: str) -> None:
        assert "content-encoding" not in dict(self.ask(tmp_path, b"gzip", told).headers)

    def test_a_coding_of_the_handlers_own_is_left(self, tmp_path: Path) -> None:
        source = """
        def handle(data, context):
            if data is None:
                return None
            context.set_response_header(0, "Content-Encoding", "br")
            return ["x" * 5000]
        """
        reply = only(load(tmp_path, source), infer(V2, headers=[(b"accept-encoding", b"gzip")]))
        assert (reply.body, reply.headers) == (b"x" * 5000, [("Content-Encoding", "br")])

    @pytest.mark.parametrize("kind", [KSERVE_PREDICT, KSERVE_EXPLAIN])
    def test_version_2_only(self, tmp_path: Path, kind: int) -> None:
        sent = infer({**V2, "parameters": {"answer": "'x' * 5000"}}, headers=[(b"accept-encoding", b"gzip")])
        assert only(load(tmp_path, ORACLE), sent, kind).body == b"x" * 5000


class TestStreams:
    SOURCE = """
    from ts.handler_utils.utils import send_intermediate_predict_response as send

    def answer(number):
        return {"outputs": [{"name": "o", "datatype": "INT8", "shape": [1], "data": [number]}]}

    def handle(data, context):
        if data is None:
            return None
        send({index: answer(index) for index in context.request_ids}, context.request_ids, "", 200, context)
        return [LAST] * len(data)
    """

    def sent(self, id: str) -> Request:
        return protobuf(message("ModelInferRequest"), id)

    def test_pieces_have_the_form_of_the_client(self, tmp_path: Path) -> None:
        channel = KeepingChannel()
        service = load(tmp_path, "LAST = ''" + self.SOURCE.replace("\n    ", "\n"), channel)
        bad = Request("b", [Part("body", PROTOBUF, b"\x0a")], [], {})
        replies = run(service, self.sent("a"), bad, infer(V2, id="c"))
        assert (replies.code, replies.failed) == (200, [1])
        pieces = {reply.index: reply.body for chunk in channel.chunks for reply in chunk.replies}
        assert sorted(pieces) == [0, 2]
        assert list(answer(Reply(0, pieces[0])).outputs[0].contents.int_contents) == [0]
        assert json.loads(pieces[2])["outputs"][0]["data"] == [1]
        assert [(reply.body, reply.streamed) for reply in replies.replies if reply.index != 1] == [(b"", True)] * 2

    def test_the_last_piece_too(self, tmp_path: Path) -> None:
        service = load(tmp_path, self.SOURCE.replace("\n    ", "\n").replace("LAST", "answer(9)"))
        reply = only(service, self.sent("a"))
        assert list(answer(reply).outputs[0].contents.int_contents) == [9]


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
sys.path.append(sys.argv[1])
from pathlib import Path
from workshop import batch, load, request
from modelserver.wire.frames import INFER

service = load(Path(sys.argv[2]), "def handle(data, context):\\n    return data and [row['body'] for row in data]\\n")
plain = request(b"{}", "application/json")
tensors = request(b'{"inputs": []}', headers=[(b"inference-header-content-length", b"14")])
replies = service.handle(batch(plain, tensors, kind=INFER))
for reply in replies.replies:
    print(reply.status, reply.body.decode())
"""


def test_models_without_numpy_serve_all_but_tensors(tmp_path: Path) -> None:
    """A model's own Python environment need not have it."""
    command = [sys.executable, "-c", WITHOUT_NUMPY, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "200 {}"
    assert second.startswith("500 The model's Python environment cannot read tensors of Open Inference: ")
