"""Bad input of every kind: one clear message that names the cause, the server up, nothing left behind."""

from __future__ import annotations

import io
import os
import signal
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from harness.archives import ECHO, NOOP, pack
from harness.server import ServerProcess, eventually

LIMIT = 200_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = {"max_request_size": LIMIT, "default_response_timeout": 60}
    with ServerProcess(tmp_path_factory.mktemp("failures"), config=config) as running:
        pack(running.store, "bystander", NOOP)
        assert running.register("bystander.mar").status_code == 200
        yield running


@pytest.fixture(autouse=True)
def bystander_is_untouched(server: ServerProcess) -> Iterator[None]:
    """Whatever a test does, the other model keeps its worker process, and nothing of the failure stays."""
    (before,) = server.ready_workers("bystander")
    yield
    (after,) = server.ready_workers("bystander")
    assert after["pid"] == before["pid"]
    assert server.predict("bystander").text == "ok"


def fails_to_register(server: ServerProcess, url: str, **parameters: Any) -> httpx.Response:
    """Register, expect an error, and check that nothing of it is left."""
    directories = set((server.temp / "models").iterdir())
    processes = len(server.tree())
    models = server.request("GET", "/models", "Management").json()
    answer = server.register(url, **parameters)
    assert answer.status_code >= 400
    assert answer.headers["connection"] == "close"
    assert answer.json()["code"] == answer.status_code
    assert "Traceback" not in answer.json()["message"]
    assert server.request("GET", "/models", "Management").json() == models
    eventually(lambda: set((server.temp / "models").iterdir()) == directories)
    eventually(lambda: len(server.tree()) == processes)
    return answer


def test_unknown_archive(server: ServerProcess) -> None:
    answer = fails_to_register(server, "nofile.mar")
    assert (answer.status_code, answer.json()["message"]) == (404, "Model not found at: nofile.mar")
    assert answer.json()["type"] == "ModelNotFoundException"


def test_path_tricks_in_the_url(server: ServerProcess) -> None:
    for url in ("../bystander.mar", "a..b.mar"):
        answer = fails_to_register(server, url)
        assert answer.status_code == 404
        assert answer.json()["message"] == f"Relative path is not allowed in url: {url}"


def test_broken_zip(server: ServerProcess) -> None:
    (server.store / "broken.mar").write_bytes(b"this is no zip archive")
    answer = fails_to_register(server, "broken.mar")
    assert (answer.status_code, answer.json()["type"]) == (400, "InvalidModelException")
    pack(server.store, "truncated", NOOP)
    whole = (server.store / "truncated.mar").read_bytes()
    (server.store / "truncated.mar").write_bytes(whole[: len(whole) // 2])
    assert fails_to_register(server, "truncated.mar").status_code in (400, 500)


def test_path_tricks_in_an_archive(server: ServerProcess) -> None:
    escaped = server.temp / "escaped.txt"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", '{"model": {"modelName": "slip", "handler": "h.py"}}')
        archive.writestr("../../escaped.txt", "out")
    (server.store / "slip.mar").write_bytes(content.getvalue())
    answer = fails_to_register(server, "slip.mar")
    assert (answer.status_code, answer.json()["message"]) == (500, "Failed to save model: slip.mar")
    assert not escaped.exists()


@pytest.mark.parametrize(
    ("name", "source", "reason", "detail"),
    [
        ("nohandle", "x = 1", "handler contract broken", "Expected only one class"),
        ("syntax", "def handle(data, context)\n    return 1", "handler cannot be imported", "SyntaxError"),
        ("importing", "import surely_not_installed", "handler cannot be imported", "surely_not_installed"),
        (
            "raising",
            "class Model:\n    def initialize(self, context):\n        raise ValueError('weights are gone')\n"
            "    def handle(self, data, context):\n        return data\n",
            "exception in initialize",
            "ValueError: weights are gone",
        ),
    ],
)
def test_handlers_that_cannot_load(server: ServerProcess, name: str, source: str, reason: str, detail: str) -> None:
    pack(server.store, name, source)
    answer = fails_to_register(server, f"{name}.mar")
    body = answer.json()
    assert answer.status_code == 500
    assert body["type"] == "InternalServerException"
    assert body["message"] == f"Failed to start workers for model {name} version: 1.0"
    assert body["cause"]["reason"] == reason
    assert detail in body["cause"]["detail"]
    if name != "nohandle":
        assert any("handler.py" in line for line in body["cause"]["traceback"]), "the traceback names the user's file"


def test_a_missing_handler_file(server: ServerProcess) -> None:
    pack(server.store, "handlerless", NOOP)
    answer = fails_to_register(server, "handlerless.mar", handler="nothere.py")
    assert answer.json()["cause"]["reason"] == "handler not found"


def test_memory_error_while_loading_is_507(server: ServerProcess) -> None:
    source = "def handle(data, context):\n    if data is None: raise MemoryError('too big')\n    return data"
    pack(server.store, "hungry", source)
    answer = fails_to_register(server, "hungry.mar")
    assert (answer.status_code, answer.json()["cause"]["reason"]) == (507, "out of memory")


def test_a_load_that_takes_too_long(server: ServerProcess) -> None:
    pack(server.store, "lazy", "import time\ndef handle(data, context):\n    time.sleep(60)\n    return data")
    answer = fails_to_register(server, "lazy.mar", startup_timeout=1)
    assert answer.json()["cause"] == {
        "reason": "load timeout",
        "detail": "initialize did not finish within startupTimeout of 1 s",
        **{key: value for key, value in answer.json()["cause"].items() if key not in ("reason", "detail")},
    }


def test_a_process_that_ends_while_loading(server: ServerProcess) -> None:
    pack(server.store, "quitter", "import os\nprint('last words', flush=True)\nos._exit(3)")
    cause = fails_to_register(server, "quitter.mar").json()["cause"]
    assert (cause["reason"], cause["exitCode"]) == ("process exited", 3)
    assert "last words" in cause["lastOutput"]


MODEL = """
import os, signal, sys, time
from ts.utils.util import PredictionException

def handle(data, context):
    if data is None:
        return None
    what = bytes(data[0]["body"]).decode()
    if what == "raise": raise KeyError("x")
    if what == "memory": raise MemoryError()
    if what == "cuda": raise RuntimeError("CUDA error")
    if what == "own": raise PredictionException("teapot", 418)
    if what == "tuple": return ("a",)
    if what == "long": return ["a", "b"]
    if what == "object": return [object()]
    if what == "exit": os._exit(1)
    if what == "sysexit": sys.exit(0)
    if what == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if what == "segfault": os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang": time.sleep(600)
    if what == "big": return ["x" * 10_000_000]
    return ["fine"]
"""


@pytest.fixture(scope="module")
def fickle(server: ServerProcess) -> Iterator[ServerProcess]:
    pack(server.store, "fickle", MODEL)
    assert server.register("fickle.mar", response_timeout=2).status_code == 200
    yield server
    assert server.request("DELETE", "/models/fickle", "Management").status_code == 200


@pytest.mark.parametrize(
    ("what", "status", "message"),
    [
        ("raise", 503, "Prediction failed"),
        ("memory", 507, "Out of resources"),
        ("cuda", 507, "Out of resources"),
        ("own", 418, "teapot"),
        ("tuple", 503, "Invalid model predict output"),
        ("long", 503, "number of batch response mismatched"),
        ("object", 503, "Unsupported model output data type."),
        ("big", 500, "Worker died."),
    ],
)
def test_failures_that_leave_the_worker_alive(fickle: ServerProcess, what: str, status: int, message: str) -> None:
    (worker,) = eventually(lambda: fickle.ready_workers("fickle"))
    answer = fickle.predict("fickle", what.encode())
    assert answer.status_code == status
    body = answer.json()
    assert {key: body[key] for key in ("code", "type", "message")} == {
        "code": status,
        "type": "InternalServerException",
        "message": message,
    }
    assert fickle.predict("fickle", b"ok").text == "fine"
    assert fickle.ready_workers("fickle")[0]["pid"] == worker["pid"]


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        ("exit", 500, "process exited"),
        ("sysexit", 500, "process exited"),
        ("kill", 507, "out of memory"),
        ("segfault", 500, "killed by a signal"),
        ("hang", 500, "response timeout"),
    ],
)
def test_failures_that_end_the_worker(fickle: ServerProcess, what: str, status: int, reason: str) -> None:
    (worker,) = eventually(lambda: fickle.ready_workers("fickle"))
    answer = fickle.predict("fickle", what.encode())
    body = answer.json()
    assert (answer.status_code, body["message"], body["cause"]["reason"]) == (status, "Worker died.", reason)
    assert fickle.predict("fickle", b"ok").text == "fine", "the next process serves"
    (replacement,) = fickle.ready_workers("fickle")
    assert replacement["pid"] != worker["pid"]
    assert (replacement["id"], replacement["startTime"]) == (worker["id"], worker["startTime"])
    assert not psutil.pid_exists(worker["pid"])
    fickle.says("Retry worker: " + worker["id"] + " in 0 seconds.")


def test_a_worker_killed_while_idle_is_replaced_unnoticed(fickle: ServerProcess) -> None:
    (worker,) = eventually(lambda: fickle.ready_workers("fickle"))
    os.kill(worker["pid"], signal.SIGKILL)
    assert fickle.predict("fickle", b"ok").text == "fine"


def test_requests_under_crashes_are_answered_every_one(fickle: ServerProcess) -> None:
    eventually(lambda: fickle.ready_workers("fickle"))
    bodies = [b"exit" if n % 10 == 5 else b"ok" for n in range(60)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda body: fickle.predict("fickle", body), bodies))
    for body, answer in zip(bodies, answers, strict=True):
        if body == b"exit":
            assert (answer.status_code, answer.json()["message"]) == (500, "Worker died.")
        else:
            assert (answer.status_code, answer.text) == (200, "fine")


def test_a_body_over_the_limit(server: ServerProcess) -> None:
    pack(server.store, "echo", ECHO)
    assert server.register("echo.mar").status_code == 200
    try:
        assert len(server.predict("echo", bytes(LIMIT)).content) == LIMIT
        answer = server.predict("echo", bytes(LIMIT + 1))
        assert answer.status_code == 413
        assert answer.json()["message"] == f"Request body exceeds max_request_size of {LIMIT} bytes."

        def endless() -> Iterator[bytes]:
            for _ in range(100):
                yield bytes(LIMIT // 10)

        chunked = server.request("POST", "/predictions/echo", content=endless())
        assert chunked.status_code == 413
    finally:
        assert server.request("DELETE", "/models/echo", "Management").status_code == 200


def test_no_worker_no_service(server: ServerProcess) -> None:
    pack(server.store, "empty", NOOP)
    answer = server.register("empty.mar", workers=0)
    assert answer.json()["status"] == (
        'Model "empty" Version: 1.0 registered with 0 initial workers. '
        "Use scale workers API to add workers for the model."
    )
    try:
        refused = server.predict("empty")
        assert (refused.status_code, refused.json()["type"]) == (503, "ServiceUnavailableException")
    finally:
        server.request("DELETE", "/models/empty", "Management")


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({}, 400, "Parameter url is required."),
        ({"url": ""}, 404, "empty url"),
        ({"url": "bystander.mar", "runtime": "ruby"}, 400, "Invalid RuntimeType value: ruby"),
        ({"url": "bystander.mar"}, 409, "Model version 1.0 is already registered for model bystander"),
        ({"url": "bystander.mar", "runtime": "LSP"}, 400, "Unsupported runtime: LSP"),
    ],
)
def test_bad_registrations(server: ServerProcess, query: dict[str, str], status: int, message: str) -> None:
    answer = server.request("POST", "/models", "Management", params=query)
    assert (answer.status_code, answer.json()["message"]) == (status, message)


@pytest.mark.parametrize(
    ("query", "status"), [("min_worker=2&max_worker=1", 400), ("min_worker=-1", 500), ("max_worker=-1", 400)]
)
def test_bad_scale_calls_change_nothing(server: ServerProcess, query: str, status: int) -> None:
    before = server.describe("bystander")
    assert server.request("PUT", f"/models/bystander?{query}", "Management").status_code == status
    assert server.describe("bystander") == before


def test_start_up_errors_name_their_cause(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, config={"inference_address": "127.0.0.1:8080"})
    server.start(wait=False)
    assert server.wait() == 1
    assert "Invalid configuration: Invalid binding address: 127.0.0.1:8080" in server.output
    assert "config.properties" in server.output

    server = ServerProcess(tmp_path)
    server.store.rmdir()
    server.start(wait=False)
    assert server.wait() == 1
    assert server.lines[-1] == f"--model-store directory not found: {server.store}"
