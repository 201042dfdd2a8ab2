"""What a handler returns or raises, and what becomes of it."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
import torch
from workshop import batch, load, request

from modelserver.wire.frames import Replies
from modelserver.worker import failures


def run(folder: Path, expression: str, *, requests: int = 1, before: str = "pass", limit: int = 10_000) -> Replies:
    """Serve one batch with a handler that returns this expression."""
    source = f"""
import json, math, sys
from ts.utils.util import PredictionException

def fail(error):
    raise error

def handle(data, context):
    if data is None:
        return
    {before}
    return {expression}
"""
    service = load(folder, source, max_response_size=limit)
    return service.handle(batch(*(request(id=f"r{index}") for index in range(requests))))


@pytest.mark.parametrize(
    ("element", "body"),
    [
        ("b'\\x00\\xff'", b"\x00\xff"),
        ("bytearray(b'ab')", b"ab"),
        ("'h\\xe9'", "h\xe9".encode()),
        ("''", b""),
        ("{'a': 1}", b'{\n  "a": 1\n}'),
        ("{}", b"{}"),
        ("[1, [2.5]]", b"[\n  1,\n  [\n    2.5\n  ]\n]"),
        ("(1, 2)", b"[\n  1,\n  2\n]"),
        ("7", b"7"),
        ("0.1", b"0.1"),
        ("True", b"true"),
        ("None", b"null"),
        ("float('nan')", b"NaN"),
        ("{'k': 'h\\xe9'}", b'{\n  "k": "h\\u00e9"\n}'),
        ("__import__('numpy').float64(1)", b"1.0"),
    ],
)
def test_elements(tmp_path: Path, element: str, body: bytes) -> None:
    replies = run(tmp_path, f"[{element}]")
    assert (replies.code, replies.failure) == (200, None)
    (reply,) = replies.replies
    assert reply.body == body
    assert isinstance(reply.body, bytes | bytearray)
    assert (reply.status, reply.phrase, reply.headers, reply.streamed) == (200, "", [], False)


def test_a_tensor_is_saved(tmp_path: Path) -> None:
    replies = run(tmp_path, "[__import__('torch').arange(3)]")
    assert torch.equal(torch.load(io.BytesIO(replies.replies[0].body)), torch.arange(3))


@pytest.mark.parametrize(
    "element",
    [
        "{'a': b'x'}",
        "{1, 2}",
        "object()",
        "__import__('numpy').ones(2)",
        "__import__('numpy').float32(1)",
        "'\\ud800'",
        "(lambda x: (x.append(x), x)[1])([])",
    ],
)
def test_what_is_not_json(tmp_path: Path, caplog: pytest.LogCaptureFixture, element: str) -> None:
    replies = run(tmp_path, f"['fine', {element}]", requests=2)
    assert (replies.code, replies.message) == (503, "Unsupported model output data type.")
    assert replies.replies == []
    assert "Unable to serialize model output." in caplog.messages


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ("('ok',)", "tuple"),
        ("{}", "dict"),
        ("None", "NoneType"),
        ("'ok'", "str"),
        ("__import__('torch').ones(1)", "torch.Tensor"),
    ],
)
def test_not_a_list(tmp_path: Path, caplog: pytest.LogCaptureFixture, result: str, kind: str) -> None:
    replies = run(tmp_path, result)
    assert (replies.code, replies.message) == (503, "Invalid model predict output")
    assert f"model: m, Invalid return type: <class '{kind}'>." in caplog.messages


@pytest.mark.parametrize(("result", "got"), [("[]", 0), ("['a']", 1), ("['a'] * 3", 3)])
def test_wrong_length(tmp_path: Path, caplog: pytest.LogCaptureFixture, result: str, got: int) -> None:
    replies = run(tmp_path, result, requests=2)
    assert (replies.code, replies.message) == (503, "number of batch response mismatched")
    assert f"model: m, number of batch response mismatched, expect: 2, got: {got}." in caplog.messages


@pytest.mark.parametrize(
    ("error", "code", "message", "line", "cause"),
    [
        ("MemoryError()", 507, "Out of resources", "System out of memory", failures.OUT_OF_MEMORY),
        ("ValueError('CUDA x')", 507, "Out of resources", "CUDA out of memory", failures.CUDA_OUT_OF_MEMORY),
        ("ValueError('x')", 503, "Prediction failed", "Invoking custom service failed.", ""),
        ("PredictionException('no', 404)", 404, "no", "Prediction error", ""),
        ("PredictionException('no')", 500, "no", "Prediction error", ""),
        ("PredictionException('CUDA', 413)", 413, "CUDA", "Prediction error", ""),
        ("PredictionException('no', 513)", 513, "no", "Prediction error", ""),
        ("PredictionException('no', '404')", 404, "no", "Prediction error", ""),
        ("PredictionException(['no'], 400)", 400, "['no']", "Prediction error", ""),
        ("PredictionException('no', 999)", 999, "no", "Prediction error", ""),
        ("PredictionException('no', 1e99)", 500, "no", "Prediction error", ""),
        ("PredictionException('no', 'many')", 503, "Prediction failed", "Invoking custom service failed.", ""),
        ("PredictionException('no', None)", 503, "Prediction failed", "Invoking custom service failed.", ""),
    ],
)
def test_failures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: str, code: int, message: str, line: str, cause: str
) -> None:
    replies = run(tmp_path, f"fail({error})", requests=2)
    assert (replies.code, replies.message, replies.replies) == (code, message, [])
    assert replies.failure is not None
    assert replies.failure.cause == cause
    assert replies.failure.detail.startswith(error.partition("(")[0])
    assert [text.splitlines()[0] for text in caplog.messages] == [line]


def test_the_reason_is_logged_with_file_and_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    replies = run(tmp_path, "1 / 0")
    assert replies.failure is not None
    for text in (replies.failure.traceback, caplog.messages[0]):
        lines = text.strip().splitlines()
        assert f'File "{tmp_path}/h.py", line 12, in handle' in "\n".join(lines)
        assert lines[-1] == "ZeroDivisionError: division by zero"
        assert "modelserver/worker" not in text


def test_what_an_exception_quotes_is_cut(tmp_path: Path) -> None:
    failure = run(tmp_path, "fail(ValueError('x' * 1000000 + '\\nsecond line'))").failure
    assert failure is not None
    assert failure.detail == "ValueError: " + "x" * 1000
    assert len(failure.traceback) == 1 << 16
    assert failure.traceback.endswith("x\nsecond line\n")


def test_a_prediction_exception_may_say_200(tmp_path: Path) -> None:
    replies = run(tmp_path, "fail(PredictionException('no', 200))", requests=2)
    assert (replies.code, replies.failure) == (200, None)
    assert [reply.body for reply in replies.replies] == [b"error", b"error"]
    assert replies.metrics == []


def test_an_exception_that_cannot_be_printed(tmp_path: Path) -> None:
    source = "type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()"
    replies = run(tmp_path, f"fail({source})")
    assert (replies.code, replies.message) == (503, "Prediction failed")


@pytest.mark.parametrize("ending", ["SystemExit(0)", "KeyboardInterrupt()"])
def test_an_exit_is_an_exit(tmp_path: Path, ending: str) -> None:
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run(tmp_path, f"fail({ending})")


def test_a_body_above_the_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(tmp_path, "['x' * 1000]", limit=1000).code == 200
    with caplog.at_level(logging.INFO):
        replies = run(tmp_path, "['x' * 1001]", limit=1000)
    assert (replies.code, replies.message) == (500, "Worker died.")
    assert caplog.messages == [
        "TooLongFrameException: Message size exceed limit: 1001\n"
        "Consider increasing the 'max_response_size' in 'config.properties' to fix."
    ]


def test_status_phrase_and_headers_stay_with_their_request(tmp_path: Path) -> None:
    before = """context.set_response_status(201, "Made", 0)
    context.set_response_content_type(0, "text/plain")
    context.set_response_header(1, "X-A", "1")"""
    first, second = run(tmp_path, "['a', 'b']", requests=2, before=before).replies
    assert (first.status, first.phrase, first.headers) == (201, "Made", [("content-type", "text/plain")])
    assert (second.status, second.phrase, second.headers) == (200, "", [("X-A", "1")])


def test_the_head_is_reset_with_the_next_batch(tmp_path: Path) -> None:
    source = """
    def handle(data, context):
        if data is None:
            return
        if data[0]["body"] == b"1":
            context.set_all_response_status(418, "Teapot")
            context.set_response_header(0, "X-A", "1")
        return ["x"] * len(data)
    """
    service = load(tmp_path, source)
    assert service.handle(batch(request(b"1"))).replies[0].status == 418
    reply = service.handle(batch(request(b"2"))).replies[0]
    assert (reply.status, reply.phrase, reply.headers) == (200, "", [])


@pytest.mark.parametrize(
    ("code", "status"),
    [("404", 404), ("'404'", 404), ("204.0", 204), ("99", 500), ("600", 500), ("999", 500), ("599", 599)],
)
def test_statuses(tmp_path: Path, code: str, status: int) -> None:
    reply = run(tmp_path, "['kept']", before=f"context.set_response_status({code}, '', 0)").replies[0]
    assert (reply.status, reply.body) == (status, b"kept")


@pytest.mark.parametrize(
    "before",
    [
        "context.set_response_status('many')",
        "context.set_response_status(None)",
        "context.set_response_status(200, 'a\\r\\nX-Evil: 1')",
        "context.set_response_header(0, 'X-A', 'a\\r\\nX-Evil: 1')",
        "context.set_response_header(0, 'X-A', 'a\\nb')",
        "context.set_response_header(0, 'X\\r\\nY', 'a')",
        "context.set_response_header(0, 'X Y', 'a')",
        "context.set_response_header(0, '', 'a')",
        "context.set_response_status(404, '', 5)",
        "context.request_processor = []",
    ],
)
def test_heads_that_would_break_the_response(tmp_path: Path, caplog: pytest.LogCaptureFixture, before: str) -> None:
    replies = run(tmp_path, "['x']", before=before)
    assert (replies.code, replies.message) == (503, "Prediction failed")
    assert caplog.messages[0].startswith("Invoking custom service failed.")


def test_header_values(tmp_path: Path) -> None:
    before = """context.set_response_header(0, "n", 5)
    context.set_response_header(0, "latin", "h\\xe9")
    context.set_response_header(0, "beyond", "\\u2192")
    context.set_response_header(0, "X-Dup", "1")
    context.set_response_header(0, "x-dup", "2")
    context.set_response_header(0, "ts_stream_next", "true")"""
    (reply,) = run(tmp_path, "['x']", before=before).replies
    assert reply.headers == [("n", "5"), ("latin", "h\xe9"), ("beyond", "?"), ("x-dup", "2")]
    assert reply.streamed is False
