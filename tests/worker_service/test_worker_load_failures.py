"""Every way a load can fail, told apart by cause, with the user's file and line where there is one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from workshop import KeepingChannel, batch, load, load_frame, write_model

from modelserver.errors import Cause
from modelserver.wire.frames import Load
from modelserver.worker import failures
from modelserver.worker.service import LoadFailed, Service


def test_causes_are_those_of_the_frontend() -> None:
    names = [name for name in vars(failures) if name.isupper() and not name.startswith("_") and name != "IN_HANDLER"]
    assert names
    assert {name: getattr(failures, name) for name in names} == {name: Cause[name].value for name in names}


def failure(frame: Load) -> LoadFailed:
    with pytest.raises(LoadFailed) as caught:
        Service.load(frame, KeepingChannel())
    return caught.value


@pytest.mark.parametrize(
    ("source", "cause", "detail"),
    [
        (
            "class A: pass\nclass B: pass\n",
            failures.HANDLER_CONTRACT,
            "ValueError: Expected only one class in custom service code or a function entry point "
            "[<class 'h.A'>, <class 'h.B'>]",
        ),
        (
            "x = 1\n",
            failures.HANDLER_CONTRACT,
            "ValueError: Expected only one class in custom service code or a function entry point []",
        ),
        (
            "class A:\n    def initialize(self, context): pass\n",
            failures.HANDLER_CONTRACT,
            "ValueError: Expect handle method in class <class 'h.A'>",
        ),
        (
            "class A:\n    def handle(self, data, context): pass\n",
            failures.HANDLER_CONTRACT,
            "AttributeError: 'A' object has no attribute 'initialize'",
        ),
        ("handle = 5\n", failures.HANDLER_CONTRACT, "TypeError: entry point 'h.py' is 5, not a function"),
        ("import no_such_module\n", failures.HANDLER_IMPORT, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("from os import nothing\n", failures.HANDLER_IMPORT, "ImportError: cannot import name 'nothing' from 'os'"),
        ("1 / 0\n", failures.HANDLER_IMPORT, "ZeroDivisionError: division by zero"),
        ("def handle(:\n", failures.HANDLER_IMPORT, "SyntaxError: "),
        ("raise BaseException('odd')\n", failures.HANDLER_IMPORT, "BaseException: odd"),
        ("def handle(data, context):\n    raise ValueError('bad')\n", failures.INITIALIZE, "ValueError: bad"),
        ("def handle(data):\n    pass\n", failures.INITIALIZE, "TypeError: handle() takes 1 positional argument"),
    ],
)
def test_other_failures_end_the_worker(tmp_path: Path, source: str, cause: str, detail: str) -> None:
    write_model(tmp_path, {"h.py": source})
    failed = failure(load_frame(tmp_path))
    assert failed.code == 500
    assert failed.failure.cause == cause
    assert failed.failure.detail.startswith(detail)
    assert failed.message == failed.failure.detail


@pytest.mark.parametrize(
    ("error", "code", "message", "cause", "line"),
    [
        ("MemoryError('x')", 507, "System out of memory", failures.OUT_OF_MEMORY, "Load model m cpu OOM, exception x"),
        (
            "RuntimeError('CUDA error: x')",
            507,
            "System out of memory",
            failures.CUDA_OUT_OF_MEMORY,
            "Load model m cuda OOM, exception CUDA error: x",
        ),
        ("RuntimeError('x')", 500, "Unknown exception", failures.INITIALIZE, "Failed to load model m, exception x"),
    ],
)
def test_answers_of_a_failed_initialize(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: str, code: int, message: str, cause: str, line: str
) -> None:
    source = f"class A:\n    def initialize(self, context):\n        raise {error}\n    def handle(self, d, c): pass\n"
    write_model(tmp_path, {"h.py": source})
    with caplog.at_level(logging.INFO):
        failed = failure(load_frame(tmp_path))
    assert (failed.code, failed.message, failed.failure.cause) == (code, message, cause)
    assert str(failed) == f"{code} - {message}"
    assert line in caplog.messages


def test_out_of_memory_while_importing(tmp_path: Path) -> None:
    write_model(tmp_path, {"h.py": "raise MemoryError\n"})
    failed = failure(load_frame(tmp_path))
    assert (failed.code, failed.failure.cause) == (507, failures.OUT_OF_MEMORY)


def test_only_a_runtime_error_is_believed_to_be_out_of_cuda_memory(tmp_path: Path) -> None:
    write_model(tmp_path, {"h.py": "def handle(data, context):\n    raise ValueError('CUDA')\n"})
    failed = failure(load_frame(tmp_path))
    assert (failed.code, failed.failure.cause) == (500, failures.INITIALIZE)


@pytest.mark.parametrize("spec", ["no_such", "no_such.py", "h:fn", "pkg.h", "..", ".py", "no.such.module"])
def test_missing_handler(tmp_path: Path, spec: str) -> None:
    write_model(tmp_path, {})
    failed = failure(load_frame(tmp_path, spec))
    assert failed.failure.cause == failures.HANDLER_MISSING
    assert spec in failed.failure.detail


def test_missing_handler_shows_both_imports(tmp_path: Path) -> None:
    trace = failure(load_frame(tmp_path, "no_such.py")).failure.traceback
    first = trace.index("ModuleNotFoundError: No module named 'no_such'")
    assert first < trace.index("ModuleNotFoundError: No module named 'ts.torch_handler.no_such")


def test_no_handler_is_named(tmp_path: Path) -> None:
    failed = failure(load_frame(tmp_path, ""))
    assert failed.failure.cause == failures.HANDLER_MISSING
    assert failed.failure.detail == "HandlerMissing: handler is not defined"


def test_a_class_named_as_function(tmp_path: Path) -> None:
    write_model(tmp_path, {"h.py": "class A:\n    pass\n"})
    failed = failure(load_frame(tmp_path, "h:A"))
    assert failed.failure.cause == failures.HANDLER_CONTRACT
    assert failed.failure.detail.startswith("TypeError: ")


def test_an_import_error_inside_the_handler_is_the_last_word(tmp_path: Path) -> None:
    write_model(tmp_path, {"h.py": "x = 1\nimport no_such_module\n"})
    trace = failure(load_frame(tmp_path)).failure.traceback
    assert trace.rstrip().endswith("ModuleNotFoundError: No module named 'no_such_module'")
    assert "ts.torch_handler" not in trace


def test_unknown_envelope(tmp_path: Path) -> None:
    write_model(tmp_path, {"h.py": "def handle(data, context): pass\n"})
    failed = failure(load_frame(tmp_path, envelope="no_such"))
    assert failed.failure.cause == failures.HANDLER_MISSING
    assert "No module named 'ts.torch_handler.request_envelope" in failed.failure.traceback


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("\n\nboom()\n", 3),
        ("\ndef handle(data, context):\n    boom()\n", 3),
        ("class A:\n    def __init__(self):\n        boom()\n", 3),
        ("\n\n\ndef handle(data, context:\n    pass\n", 4),
    ],
    ids=["import", "function", "constructor", "syntax"],
)
def test_traceback_is_about_the_users_file(tmp_path: Path, source: str, line: int) -> None:
    write_model(tmp_path, {"h.py": source})
    trace = failure(load_frame(tmp_path)).failure.traceback.splitlines()
    assert f'File "{tmp_path}/h.py", line {line}' in "\n".join(trace[:2])
    assert not any("modelserver/worker" in text or "importlib" in text for text in trace)


@pytest.mark.parametrize(
    ("raised", "detail"),
    [
        ("ValueError('one\\ntwo')", "ValueError: one"),
        ("ValueError", "ValueError"),
        (
            "RuntimeError('Error(s) in loading state_dict for M:\\n\\tMissing key(s): \"c\".\\n\\tmore')",
            'RuntimeError: Error(s) in loading state_dict for M: Missing key(s): "c".',
        ),
        ("ValueError('nothing follows:')", "ValueError: nothing follows:"),
    ],
)
def test_an_exception_in_one_line(tmp_path: Path, raised: str, detail: str) -> None:
    write_model(tmp_path, {"h.py": f"def handle(data, context):\n    raise {raised}\n"})
    assert failure(load_frame(tmp_path)).failure.detail == detail


def test_an_exception_without_text(tmp_path: Path) -> None:
    source = """
    class Odd(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    def handle(data, context):
        raise Odd
    """
    write_model(tmp_path, {"h.py": source})
    assert failure(load_frame(tmp_path)).failure.detail == "Odd: <Odd without text>"


@pytest.mark.parametrize("ending", ["SystemExit(3)", "KeyboardInterrupt()"])
def test_an_exit_is_an_exit(tmp_path: Path, ending: str) -> None:
    source = f"def handle(data, context):\n    raise {ending}\n"
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        load(tmp_path, source)


@pytest.mark.parametrize(
    ("files", "detail"),
    [
        ({"MAR-INF/MANIFEST.json": "{bad"}, "manifest cannot be read"),
        ({"MAR-INF/MANIFEST.json": "[]"}, "manifest is not a JSON object"),
        ({"MAR-INF/MANIFEST.json": '{"model": {"configFile": "c.yaml"}}'}, "model config file c.yaml cannot be read"),
        (
            {"MAR-INF/MANIFEST.json": '{"model": {"configFile": "c.yaml"}}', "c.yaml": "a: [1"},
            "model config file c.yaml cannot be read",
        ),
        (
            {"MAR-INF/MANIFEST.json": '{"model": {"configFile": "c.yaml"}}', "c.yaml": "- 1\n"},
            "model config file c.yaml is not a mapping",
        ),
        ({"MAR-INF/MANIFEST.json": '{"model": {"configFile": "../c.yaml"}}'}, "is outside of the archive"),
        ({"MAR-INF/MANIFEST.json": '{"model": {"configFile": "/etc/c.yaml"}}'}, "is outside of the archive"),
    ],
)
def test_bad_archives(tmp_path: Path, files: dict[str, str], detail: str) -> None:
    write_model(tmp_path, {**files, "h.py": "def handle(data, context): pass\n"})
    failed = failure(load_frame(tmp_path))
    assert failed.failure.cause == failures.BAD_ARCHIVE
    assert detail in failed.failure.detail


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, {}),
        ("", {}),
        ("# nothing\n", {}),
        ("minWorkers: 2\nhandler:\n  x: yes\n", {"minWorkers": 2, "handler": {"x": True}}),
    ],
)
def test_model_config(tmp_path: Path, config: str | None, expected: dict[str, Any]) -> None:
    source = "def handle(data, context):\n    return data and [context.model_yaml_config]\n"
    files = {"h.py": source} if config is None else {"h.py": source, "conf/c.yaml": config}
    write_model(tmp_path, files, **({} if config is None else {"configFile": "conf/c.yaml"}))
    replies = Service.load(load_frame(tmp_path), KeepingChannel()).handle(batch())
    assert json.loads(replies.replies[0].body) == expected
