"""Request envelopes around real handlers, as a worker loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from workshop import KeepingChannel, batch, describe, load, load_frame, request, write_model

from modelserver.wire.frames import EXPLAIN, Part, Replies, Request
from modelserver.worker.service import Service

# Answers each row with itself; keeps what it was called with.
ECHO = """
CALLS = []

def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "describe") == "True":
        return [{"described": True}]
    CALLS.append([data, context.get_request_id(0), len(context.request_processor)])
    return list(data)
"""

BYTES_AS_TEXT = """
def handle(data, context):
    if data is None:
        return None
    return [str(row) for row in data]
"""

EXPLAINING = """
from ts.torch_handler.base_handler import BaseHandler

class Explaining(BaseHandler):
    def initialize(self, context):
        self.context = context
    def preprocess(self, data):
        return data
    def inference(self, data):
        return data
    def postprocess(self, data):
        return data
    def get_insights(self, prepared, inputs, target):
        return [[inputs, target]] * len(prepared)
"""


def body(value: Any, mime: str = "application/json", id: str = "r0", explain: bool = False) -> Request:
    sent = json.dumps(value).encode() if not isinstance(value, bytes) else value
    return request(sent, mime, id=id, extra={"explain": str(explain)})


def answers(service: Service, *requests: Request) -> list[Any]:
    replies = service.handle(batch(*requests))
    assert replies.code == 200, replies
    return [json.loads(reply.body) for reply in replies.replies]


def refusal(service: Service, *requests: Request) -> tuple[int, str]:
    replies: Replies = service.handle(batch(*requests))
    return replies.code, replies.message


def test_body(tmp_path: Path) -> None:
    service = load(tmp_path, ECHO, envelope="body")
    form = Request("r2", [Part("data", "", b""), Part("body", "text/plain", b"b")], [], {})
    replies = service.handle(batch(body({"a": 1}), form, Request("r3", [], [], {}))).replies
    assert [reply.body for reply in replies] == [b'{\n  "a": 1\n}', b"b", b"null"]


@pytest.mark.check("handlers", 21)
@pytest.mark.check("explain", 4)
def test_body_hands_targets_to_explanations(tmp_path: Path) -> None:
    service = load(tmp_path, EXPLAINING, envelope="body")
    assert answers(service, body({"data": "x", "target": 2}, explain=True)) == [["x", 2]]


@pytest.mark.check("handlers", 21)
@pytest.mark.parametrize("mime", ["application/json", "", "application/octet-stream"])
def test_json(tmp_path: Path, mime: str) -> None:
    service = load(tmp_path, ECHO, envelope="json")
    replies = service.handle(batch(body({"instances": [1, 2]}, mime), body({"instances": ["c"]}, mime)))
    assert [reply.body for reply in replies.replies] == [b'{"predictions": [1, 2]}', b'{"predictions": ["c"]}']


def test_json_decodes_base64(tmp_path: Path) -> None:
    service = load(tmp_path, BYTES_AS_TEXT, envelope="json")
    sent = {"instances": [{"b64": "eA=="}, {"image": {"b64": "eQ=="}, "n": 1}]}
    assert answers(service, body(sent)) == [{"predictions": ["b'x'", "{'image': b'y', 'n': 1}"]}]
    assert answers(service, body({"instances": ["a", {"b64": "eA=="}]})) == [
        {"predictions": ["a", "{'b64': 'eA=='}"]}  # only looked for where the first instance is an object
    ]


@pytest.mark.check("explain", 3)
def test_json_stays_with_predictions_for_explanations(tmp_path: Path) -> None:
    service = load(tmp_path, EXPLAINING, envelope="json")
    sent = {"instances": [{"data": 1, "target": 2}, {"data": 3}]}
    assert answers(service, body(sent, explain=True)) == [{"predictions": [[1, 2], [1, 2]]}]


@pytest.mark.check("handlers", 21)
@pytest.mark.check("explain", 3)
@pytest.mark.parametrize("mime", ["application/json", ""])
def test_kserve(tmp_path: Path, mime: str) -> None:
    service = load(tmp_path, ECHO, envelope="kserve")
    replies = service.handle(batch(body({"instances": [1, {"data": "x"}]}, mime)))
    expected = b'{\n  "predictions": [\n    1,\n    {\n      "data": "x"\n    }\n  ]\n}'
    assert [reply.body for reply in replies.replies] == [expected]


def test_kserve_batches(tmp_path: Path) -> None:
    service = load(tmp_path, ECHO, envelope="kserve")
    requests = (body({"instances": [1, 2]}), body({"instances": []}), body({"instances": [3]}))
    assert answers(service, *requests) == [{"predictions": [1, 2]}, {"predictions": []}, {"predictions": [3]}]
    assert answers(service, body({"instances": []})) == [{"predictions": []}]


def test_kserve_explanations_have_targets_of_their_own(tmp_path: Path) -> None:
    service = load(tmp_path, EXPLAINING, envelope="kserve")
    first = body({"instances": [{"data": "x", "target": 2}, {"data": "y", "target": 1}]}, explain=True, id="a")
    second = body({"instances": [{"data": "z", "target": 3}]}, explain=True, id="b")
    frame = batch(first, second, kind=EXPLAIN)
    replies = service.handle(frame)
    assert [json.loads(reply.body) for reply in replies.replies] == [
        {"explanations": [["x", 2], ["x", 2]]},
        {"explanations": [["z", 3]]},
    ]
    assert [metric.request_ids for metric in replies.metrics] == ["a", "b", "a,b"]  # HandlerTime twice, PredictionTime


def test_kserve_results_that_do_not_fit(tmp_path: Path) -> None:
    source = "def handle(data, context):\n    return data and ['one']\n"
    service = load(tmp_path, source, envelope="kserve")
    assert answers(service, body({"instances": [1, 2]})) == [{"predictions": ["one"]}]
    assert refusal(service, body({"instances": [1, 2]}), body({"instances": [3]})) == (503, "Prediction failed")


V2 = {"id": "abc", "inputs": [{"name": "in0", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}

DATA = """
def handle(data, context):
    return None if data is None else [row["data"] for row in data]
"""


@pytest.mark.check("handlers", 21)
def test_kservev2(tmp_path: Path) -> None:
    write_model(tmp_path, {}, modelVersion="1.0")
    service = load(tmp_path, DATA, envelope="kservev2")
    replies = service.handle(batch(body(V2, "")))
    output = {"name": "in0", "datatype": "INT64", "data": [1, 2, 3, 4], "shape": [4]}
    expected = {"id": "abc", "model_name": "m", "model_version": "1.0", "outputs": [output]}
    assert [reply.body.decode() for reply in replies.replies] == [json.dumps(expected, indent=2)]


@pytest.mark.parametrize("id", [None, "", "  "])
def test_kservev2_without_id(tmp_path: Path, id: str | None) -> None:
    service = load(tmp_path, DATA, envelope="kservev2")
    requests = [body({**V2, "id": id}, id=name) for name in ("r-1", "r-2")]
    assert [answer["id"] for answer in answers(service, *requests)] == ["r-1", "r-2"]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "seen"),
    [
        ("FP32", [2, 2], [1, 2, 3, 4], [[1, 2], [3, 4]]),
        ("INT64", [3, 1], [[1], [2], [3]], [[1], [2], [3]]),
        ("BOOL", [2], [True, False], [True, False]),
        ("WHATEVER", [1], [0.5], [0.5]),
        ("BYTES", [1], ["text"], "text"),
        ("BYTES", [-1], ["text"], "text"),
        ("BYTES", [2], ["a", "b"], ["a", "b"]),
    ],
)
def test_kservev2_inputs(tmp_path: Path, datatype: str, shape: list[int], data: list[Any], seen: Any) -> None:
    source = "def handle(data, context):\n    return data and [repr(row['data']) for row in data]\n"
    service = load(tmp_path, source, envelope="kservev2")
    sent = {"inputs": [{"name": "i", "shape": shape, "datatype": datatype, "data": data}]}
    assert answers(service, body(sent))[0]["outputs"][0]["data"] == [repr(seen)]


@pytest.mark.check("explain", 3)
@pytest.mark.parametrize(
    ("result", "datatype", "data"),
    [
        ("3", "INT64", [3]),
        ("[1.5, 2]", "FP64", [1.5, 2.0]),
        ("[[True], [False]]", "BOOL", [True, False]),
        ("'text'", "BYTES", ["text"]),
        ("{'a': 1}", "BYTES", [{"a": 1}]),
        ("np.ones((1, 2), np.float32)", "FP32", [1.0, 1.0]),
        ("np.ones(1, np.float16)", "FP16", [1.0]),
        ("np.ones(2, np.uint8)", "UINT8", [1, 1]),
    ],
)
def test_kservev2_outputs(tmp_path: Path, result: str, datatype: str, data: list[Any]) -> None:
    source = f"import numpy as np\ndef handle(data, context):\n    return data and [{result}]\n"
    (answer,) = answers(load(tmp_path, source, envelope="kservev2"), body(V2))
    assert answer["outputs"] == [{"name": "in0", "datatype": datatype, "data": data, "shape": [len(data)]}]


def test_kservev2_calls_the_handler_for_each_request(tmp_path: Path) -> None:
    source = """
    def handle(data, context):
        if data is None:
            return None
        context.set_response_header(0, "X-Id", context.get_request_id(0))
        return [{"names": context.input_names, "ids": context.request_ids}] * len(data)
    """
    service = load(tmp_path, source, envelope="kservev2")
    replies = service.handle(batch(body(V2, id="a"), body(V2, id="b")))
    assert [reply.headers for reply in replies.replies] == [[("X-Id", "a")], [("X-Id", "b")]]
    seen = [json.loads(reply.body)["outputs"][0]["data"] for reply in replies.replies]
    assert seen == [[{"names": ["in0"], "ids": {"0": name}}] for name in ("a", "b")]


STREAMING = """
from ts.handler_utils.utils import send_intermediate_predict_response as send

def handle(data, context):
    if data is None:
        return None
    send(["piece of " + context.get_request_id(0)], context.request_ids, "", 200, context)
    return ["end"]
"""


def test_pieces_reach_the_request_whose_turn_it_is(tmp_path: Path) -> None:
    channel = KeepingChannel()
    service = load(tmp_path, STREAMING, channel, envelope="kservev2")
    service.handle(batch(body(V2, id="a"), body(V2, id="b")))
    pieces = [(reply.index, reply.body) for chunk in channel.chunks for reply in chunk.replies]
    assert pieces == [(0, b"piece of a"), (1, b"piece of b")]


@pytest.mark.parametrize(
    ("envelope", "sent", "message"),
    [
        ("json", b"{", "request is not valid JSON"),
        ("json", {"x": 1}, "request has no list 'instances'"),
        ("json", {"instances": []}, "request has no instances"),
        ("json", [1], "request is not a JSON object"),
        ("kserve", b"\xff", "request is not valid JSON"),
        ("kserve", b"", "request is not valid JSON"),
        ("kserve", [1], "request is not a JSON object"),
        ("kserve", {"x": 1}, "request has no list 'instances'"),
        ("kservev2", b"{", "request is not valid JSON"),
        ("kservev2", {"x": 1}, "request has no list 'inputs'"),
        ("kservev2", {"inputs": [1]}, "an input is not an object with the member 'data'"),
        ("kservev2", {"inputs": [{"name": "i", "data": [1]}]}, "data of input 'i' do not fit its shape: 'shape'"),
        ("kservev2", {"inputs": [{"name": "i", "shape": [2], "data": [1]}]}, "data of input 'i' do not fit its shape"),
    ],
)
def test_bad_requests(tmp_path: Path, envelope: str, sent: Any, message: str) -> None:
    code, text = refusal(load(tmp_path, ECHO, envelope=envelope), body(sent, ""))
    assert code == 400
    assert text.startswith(message)


def test_more_results_than_inputs(tmp_path: Path) -> None:
    source = "def handle(data, context):\n    return data and [1, 2]\n"
    assert refusal(load(tmp_path, source, envelope="kservev2"), body(V2)) == (503, "Prediction failed")


@pytest.mark.parametrize("envelope", ["body", "json", "kserve", "kservev2", "kfserving", "kfservingv2"])
def test_describe_calls_pass_by(tmp_path: Path, envelope: str) -> None:
    (reply,) = load(tmp_path, ECHO, envelope=envelope).handle(describe()).replies
    assert json.loads(reply.body) == {"described": True}


@pytest.mark.parametrize(
    ("old", "sent", "member"), [("kfserving", {"instances": [1]}, "predictions"), ("kfservingv2", V2, "outputs")]
)
def test_older_names(tmp_path: Path, old: str, sent: Any, member: str) -> None:
    (answer,) = answers(load(tmp_path, DATA if old == "kfservingv2" else ECHO, envelope=old), body(sent))
    assert member in answer


def test_an_envelope_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
    from ts.torch_handler.request_envelope.base import BaseEnvelope

    class Shouting(BaseEnvelope):
        def parse_input(self, data):
            return [row["body"].upper() for row in data]

        def format_output(self, data):
            return [{"said": row, "by": self.context.model_name} for row in data]
    """
    import ts.torch_handler.request_envelope as package

    write_model(tmp_path / "envelopes", {"shouting.py": source})
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "envelopes")])
    write_model(tmp_path / "model", {"h.py": ECHO})
    service = Service.load(load_frame(tmp_path / "model", envelope="shouting"), KeepingChannel())
    assert answers(service, request(b"a", "text/plain")) == [{"said": "A", "by": "m"}]
