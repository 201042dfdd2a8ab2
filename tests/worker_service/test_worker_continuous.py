"""Batches that are steps: which requests go on, what the handler sees of them, and criteria that break the rule."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from workshop import KeepingChannel, load_frame, request, write_model

from harness.stubs import message, module
from modelserver.wire.frames import (
    DESCRIBE,
    EXPLAIN,
    INFER,
    KSERVE_PREDICT,
    PREDICT,
    PROTOBUF,
    Batch,
    OpenInference,
    Part,
    Replies,
    Request,
    TensorSpec,
)
from modelserver.worker.continuous_service import ContinuousService, load_service
from modelserver.worker.failures import HANDLER_CONTRACT
from modelserver.worker.loop import ProtocolError
from modelserver.worker.service import Service

# Counts down from what a request says, and keeps a log of what it sees.
COUNTER = """
SEEN = []

def handle(data, context):
    if data is None:
        context.cache = {}
        return
    if context.get_request_header(0, "describe"):
        return [{"seen": SEEN}]
    ids = context.request_ids.values()
    context.cache = {id: left for id, left in context.cache.items() if id in ids}
    for id, row in zip(ids, data):
        if id not in context.cache:
            context.cache[id] = int(row["body"])
    SEEN.append([(id, sorted(row), context.get_request_header(i, "X-A")) for i, (id, row) in enumerate(zip(ids, data))])
    for id in ids:
        context.cache[id] -= 1
    context.stopping_criteria = [lambda text, id=id: context.cache[id] < 1 for id in ids]
    return [f"{context.cache[id]} " for id in ids]
"""

# Its criteria are what `CRITERIA` says.
JUDGE = """
from ts.handler_utils.utils import send_intermediate_predict_response as send

def handle(data, context):
    if data is None:
        return
    context.stopping_criteria = {criteria}
    {piece}
    return [str(index) for index in range(len(data))]
"""


def load(folder: Path, source: str, channel: KeepingChannel | None = None, **changes: Any) -> Service:
    write_model(folder, {"h.py": source})
    return load_service(load_frame(folder, continuous=True, **changes), channel or KeepingChannel())


def judged(folder: Path, criteria: str, *, piece: str = "pass", rows: int = 2) -> Replies:
    service = load(folder, JUDGE.format(criteria=criteria, piece=piece))
    return service.handle(Batch(1, PREDICT, [request(id=str(index)) for index in range(rows)]))


def bare(*ids: str) -> list[Request]:
    """As they travel when they go on."""
    return [Request(id, [], [], {}) for id in ids]


def step(service: Service, continued: Sequence[str], *fresh: Request, kind: int = PREDICT) -> Replies:
    return service.handle(Batch(7, kind, [*bare(*continued), *fresh], len(continued)))


def texts(replies: Replies) -> list[str]:
    assert replies.code == 200, replies
    return [reply.body.decode() for reply in replies.replies]


def test_plain_models_have_the_plain_service(tmp_path: Path) -> None:
    write_model(tmp_path, {"h.py": COUNTER})
    assert type(load_service(load_frame(tmp_path), KeepingChannel())) is Service
    assert type(load_service(load_frame(tmp_path, continuous=True), KeepingChannel())) is ContinuousService


def test_requests_go_on_until_their_criteria_say_so(tmp_path: Path) -> None:
    service = load(tmp_path, COUNTER)
    first = step(service, [], request(b"3", id="a", headers=[(b"x-a", b"A")]))
    assert (texts(first), first.going_on) == (["2 "], [0])
    second = step(service, ["a"], request(b"1", id="b"), request(b"2", id="c"))
    assert (texts(second), second.going_on) == (["1 ", "0 ", "1 "], [0, 2])
    third = step(service, ["a", "c"])
    assert (texts(third), third.going_on) == (["0 ", "0 "], [])
    seen = json.loads(step(service, [], Request("d", [], [], {"describe": "True"}), kind=DESCRIBE).replies[0].body)
    assert seen["seen"] == [
        [["a", ["body"], "A"]],
        [["a", [], "A"], ["b", ["body"], None], ["c", ["body"], None]],
        [["a", [], "A"], ["c", [], None]],
    ]


def test_what_the_server_has_added_to_a_request_stays_there(tmp_path: Path) -> None:
    source = """
    def handle(data, context):
        if data is None:
            return
        context.stopping_criteria = [lambda _: False]
        return [[context.get_request_header(0, "url_path"), context.get_all_request_header(0), sorted(data[0])]]
    """
    service = load(tmp_path, source)
    step(service, [], request(b"x", id="a", headers=[(b"A", b"1")], extra={"url_path": "p"}))
    for _ in range(2):
        (text,) = texts(step(service, ["a"]))
        assert json.loads(text) == ["p", {"A": "1", "url_path": "p"}, []]


def test_who_has_left_is_forgotten(tmp_path: Path) -> None:
    service = load(tmp_path, COUNTER)
    step(service, [], request(b"9", id="a"), request(b"9", id="b"))
    assert texts(step(service, ["b"])) == ["7 "]
    with pytest.raises(ProtocolError, match="request 'a' goes on, but has not begun here"):
        step(service, ["a"])


def test_an_error_ends_all_requests(tmp_path: Path) -> None:
    service = load(tmp_path, COUNTER)
    step(service, [], request(b"9", id="a"))
    failed = step(service, ["a"], request(b"no number", id="b"))
    assert (failed.code, failed.message, failed.going_on) == (503, "Prediction failed", [])
    assert texts(step(service, [], request(b"1", id="c"))) == ["0 "]


def test_who_goes_on_is_up_to_the_rank_that_answers(tmp_path: Path) -> None:
    """Another one may see it otherwise, or fail: it is given the next step all the same."""
    source = """
    def handle(data, context):
        if data is None:
            return
        if data[0] and context.get_request_header(0, "fail"):
            raise ValueError("on this rank")
        return [str(row) for row in data]
    """
    service = load(tmp_path, source)
    assert step(service, [], request(b"x", id="a")).going_on == []
    assert texts(step(service, ["a"])) == ["{}"]
    assert step(service, ["a"], request(b"x", id="b", headers=[(b"fail", b"1")])).code == 200
    assert step(service, [], request(b"x", id="c", headers=[(b"fail", b"1")])).code == 503
    assert texts(step(service, ["c"])) == ["{}"]
    asked = request(json.dumps(V2).encode(), "application/json", id="d")
    assert step(service, [], asked, kind=INFER).going_on == []
    assert texts(step(service, ["d"], kind=INFER)) == ["{}"]


def test_a_describe_call_is_not_judged_and_changes_nothing(tmp_path: Path) -> None:
    service = load(tmp_path, COUNTER + "    context.stopping_criteria = 3\n")
    step(service, [], request(b"9", id="a"))
    described = step(service, [], Request("d", [], [], {"describe": "True"}), kind=DESCRIBE)
    assert (described.code, described.going_on) == (200, [])
    assert texts(step(service, ["a"])) == ["7 "]


@pytest.mark.parametrize(
    ("criteria", "going_on"),
    [
        ("None", []),
        ("[lambda _: True, lambda _: False]", [1]),
        ("[lambda _: None, lambda _: None]", []),
        ("(lambda _: False, lambda text: text == '1')", [0]),
        ("[lambda _: 0, lambda _: 1, 'left over']", [0]),
        ("[lambda _: False] * 9", [0, 1]),
    ],
)
def test_what_criteria_say(tmp_path: Path, criteria: str, going_on: list[int]) -> None:
    replies = judged(tmp_path, criteria)
    assert (replies.code, replies.going_on) == (200, going_on)


RULE = "context.stopping_criteria is None, or a list with one callable for each row"


@pytest.mark.parametrize(
    ("criteria", "rule"),
    [
        ("[lambda _: False]", f"{RULE}: expected 2, got 1"),
        ("[]", f"{RULE}: expected 2, got 0"),
        ("lambda _: False", f"{RULE}: got a function"),
        ("{0: lambda _: False}", f"{RULE}: got a dict"),
        ("[lambda _: False, True]", f"{RULE}: number 1 is a bool"),
        (
            "[lambda _: False, lambda _: 1 / 0]",
            "a stopping criterion returns True, False or None: number 1 raised ZeroDivisionError: division by zero",
        ),
        (
            "[lambda: False] * 2",
            "a stopping criterion returns True, False or None: number 0 raised TypeError: "
            "<lambda>() takes 0 positional arguments but 1 was given",
        ),
    ],
)
def test_criteria_that_break_the_rule(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, criteria: str, rule: str
) -> None:
    replies = judged(tmp_path, criteria)
    assert (replies.code, replies.message, replies.going_on) == (503, "Invalid stopping criteria", [])
    assert replies.failure is not None
    assert (replies.failure.cause, replies.failure.detail.replace("handle.<locals>.", "")) == (HANDLER_CONTRACT, rule)
    assert any(text.endswith(f'File "{tmp_path}/h.py", line 4, in handle') for text in caplog.messages)


def test_the_place_of_a_class_whose_result_breaks_the_rule(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = """
    from ts.torch_handler.base_handler import BaseHandler

    class H(BaseHandler):
        def initialize(self, context):
            pass

        def preprocess(self, data):
            return data

        def inference(self, data):
            return data

        def postprocess(self, data):
            return []
    """
    assert load(tmp_path, source).handle(Batch(1, PREDICT, [request()])).code == 503
    assert any(f'File "{tmp_path}/h.py", line 14, in H.postprocess' in text for text in caplog.messages)


def test_pieces_within_a_step(tmp_path: Path) -> None:
    channel = KeepingChannel()
    source = JUDGE.format(
        criteria="[lambda _: False, lambda _: None]",
        piece="send(['p'] * len(data), context.request_ids, '', 200, context)",
    )
    service = load(tmp_path, source, channel)
    replies = step(service, [], request(id="a"), request(id="b"))
    assert replies.going_on == [0]
    assert [reply.body for reply in channel.chunks[0].replies] == [b"p", b"p"]
    step(service, ["a"])
    assert [reply.index for reply in channel.chunks[1].replies] == [0]


def test_cancelled_requests_are_seen_within_a_step(tmp_path: Path) -> None:
    channel = KeepingChannel()
    channel.gone.add("b")
    source = "def handle(data, context):\n    return None if data is None else context.cancelled\n"
    assert texts(step(load(tmp_path, source, channel), [], request(id="a"), request(id="b"))) == ["false", "true"]


@pytest.mark.parametrize("kind", [EXPLAIN, KSERVE_PREDICT])
def test_other_kinds_go_on_too(tmp_path: Path, kind: int) -> None:
    service = load(tmp_path, COUNTER)
    first = step(service, [], request(b"2", id="a"), request(b"1", id="b"), kind=kind)
    assert (texts(first), first.going_on) == (["1 ", "0 "], [0])
    last = step(service, ["a"], kind=kind)
    assert (texts(last), last.going_on) == (["0 "], [])


def test_a_profile_is_that_of_the_last_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_BENCHMARK", "True")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    service = load(tmp_path, COUNTER)
    step(service, [], request(b"2", id="a"))
    assert texts(step(service, ["a"])) == ["0 "]
    assert (tmp_path / "tsPythonProfile.prof").stat().st_size


# Adds up its first input with every step, up to 3.
TENSORS = """
import numpy as np

def handle(data, context):
    if data is None:
        context.state = {}
        return
    answers = []
    for index, row in enumerate(data):
        id = context.request_ids.get(index, 0)
        if row:
            context.state[id] = [row["body"]["inputs"][0]["data"][0], 0]
        context.state[id][1] += 1
        total = context.state[id][0] * context.state[id][1]
        answers.append({"outputs": [{"name": "y", "datatype": "INT32", "shape": [1], "data": [total]}]})
    context.stopping_criteria = [lambda _, i=context.request_ids[i]: context.state[i][1] > 2 for i in range(len(data))]
    return answers
"""
V2 = {"id": "mine", "inputs": [{"name": "x", "datatype": "INT32", "shape": [1], "data": [4]}]}
DECLARED = OpenInference(False, (TensorSpec("x", "INT32", (1,)),), ())


def test_tensors_in_json_go_on_in_pieces(tmp_path: Path) -> None:
    service = load(tmp_path, TENSORS, open_inference=DECLARED)
    first = step(service, [], request(json.dumps(V2).encode(), "application/json", id="a"), kind=INFER)
    second = step(service, ["a"], kind=INFER)
    last = step(service, ["a"], kind=INFER)
    assert [first.going_on, second.going_on, last.going_on] == [[0], [0], []]
    found = [json.loads(texts(replies)[0])["outputs"][0]["data"] for replies in (first, second, last)]
    assert found == [[4], [8], [12]]


def test_tensors_in_messages_go_on_as_messages(tmp_path: Path) -> None:
    tensor = {"name": "x", "datatype": "INT32", "shape": [1], "contents": {"int_contents": [4]}}
    asked = message("ModelInferRequest", model_name="m", id="mine", inputs=[tensor]).SerializeToString()
    service = load(tmp_path, TENSORS)
    fresh = [Request(id, [Part("body", PROTOBUF, asked)], [], {}) for id in "ab"]
    broken = Request("c", [Part("body", PROTOBUF, b"\xff")], [], {})
    first = step(service, [], fresh[0], broken, fresh[1], kind=INFER)
    assert (first.failed, first.going_on) == ([1], [0, 2])
    second = step(service, ["a", "b"], broken, kind=INFER)
    last = step(service, ["b"], kind=INFER)
    assert (second.failed, second.going_on, last.going_on) == ([2], [0, 1], [])
    parse = module("grpc_predict_v2_pb2").ModelInferResponse.FromString
    answers = [parse(replies.replies[0].body) for replies in (first, second, last)]
    assert {answer.id for answer in answers} == {"mine"}
    totals = [list(answer.outputs[0].contents.int_contents) for answer in answers]
    assert totals == [[4], [8], [12]]


def test_rows_of_tensors_go_on_as_long_as_one_of_them_does(tmp_path: Path) -> None:
    source = """
    import numpy as np

    def handle(data, context):
        if data is None:
            context.count = 0
            return
        context.count += 1
        context.stopping_criteria = [lambda _: True, lambda _: context.count > 1]
        return [{"y": np.array([len(row)], np.int32)} for row in data]
    """
    declared = OpenInference(True, (TensorSpec("x", "INT32", (-1, 1)),), (TensorSpec("y", "INT32", (-1, 1)),))
    document = {"inputs": [{"name": "x", "datatype": "INT32", "shape": [2, 1], "data": [1, 2]}]}
    service = load(tmp_path, source, open_inference=declared)
    first = step(service, [], request(json.dumps(document).encode(), "application/json", id="a"), kind=INFER)
    last = step(service, ["a"], kind=INFER)
    assert (first.going_on, last.going_on) == ([0], [])
    assert [json.loads(texts(replies)[0])["outputs"][0]["data"] for replies in (first, last)] == [[1, 1], [0, 0]]


def test_an_empty_end_says_nothing(tmp_path: Path) -> None:
    source = """
    def handle(data, context):
        if data is None:
            return
        context.stopping_criteria = [lambda text: not text]
        return ["piece"] if data[0] else [""]
    """
    service = load(tmp_path, source)
    assert texts(step(service, [], request(b"{}", "application/json", id="a"), kind=INFER)) == ["piece"]
    last = step(service, ["a"], kind=INFER)
    assert (texts(last), last.going_on) == ([""], [])
