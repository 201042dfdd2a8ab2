"""A handler that breaks the contract: the rule for the client, and the place of its code for the log."""

from __future__ import annotations

from pathlib import Path

import pytest
from workshop import batch, load, request

from modelserver.worker import failures
from modelserver.worker.place import place_of
from ts.handler_utils.micro_batching import MicroBatching
from ts.torch_handler.base_handler import BaseHandler

FUNCTION = """
def handle(data, context):
    return None if data is None else {result}
"""

CLASS = """
class H:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return {result}
"""

STEPS = """
from ts.torch_handler.base_handler import BaseHandler

class H(BaseHandler):
    def initialize(self, context):
        pass

    def preprocess(self, data):
        return data

    def inference(self, data):
        return data

    def postprocess(self, data):
        return {result}
"""


@pytest.mark.parametrize(
    ("result", "rule"),
    [
        ("'text'", "a handler returns a list with one element for each request of the batch: expected 2, got a str"),
        ("(1, 2)", "a handler returns a list with one element for each request of the batch: expected 2, got a tuple"),
        ("[1]", "a handler returns a list with one element for each request of the batch: expected 2, got 1 elements"),
        (
            "[1, {2}]",
            "a handler returns elements that are bytes, str, tensors or JSON: set cannot be written as JSON: "
            "Object of type set is not JSON serializable",
        ),
    ],
)
def test_the_rule_is_answered(tmp_path: Path, result: str, rule: str) -> None:
    replies = load(tmp_path, FUNCTION.format(result=result)).handle(batch(request(id="a"), request(id="b")))
    assert replies.code == 503
    assert replies.failure is not None
    assert (replies.failure.cause, replies.failure.detail) == (failures.HANDLER_CONTRACT, rule)
    assert str(tmp_path) not in replies.failure.detail + replies.failure.traceback


@pytest.mark.parametrize(
    ("source", "line", "name"),
    [(FUNCTION, 2, "handle"), (CLASS, 6, "H.handle"), (STEPS, 14, "H.postprocess")],
    ids=["function", "class", "steps"],
)
@pytest.mark.parametrize("envelope", ["", "body"])
def test_file_and_line_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, source: str, line: int, name: str, envelope: str
) -> None:
    replies = load(tmp_path, source.format(result="[]"), envelope=envelope).handle(batch())
    assert replies.code == 503
    place = f'File "{tmp_path}/h.py", line {line}, in {name}'
    assert any(message.endswith(f"got 0 elements\n{place}") for message in caplog.messages)


def test_the_handler_behind_a_pipeline(tmp_path: Path) -> None:
    class Mine(BaseHandler):
        def preprocess(self, data: object) -> object:
            return data

    pipeline = MicroBatching(Mine())
    assert place_of(pipeline).endswith(".Mine.preprocess")
    pipeline.shutdown()


def test_built_in_handlers_have_no_place() -> None:
    assert place_of(BaseHandler().handle) == ""
