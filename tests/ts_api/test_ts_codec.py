"""The classic byte form of messages, and the services and workers that speak it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ts
from ts.context import Context, RequestProcessor
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.model_loader import ModelLoaderFactory
from ts.model_service_worker import TorchModelServiceWorker
from ts.protocol import otf_message_handler as codec
from ts.service import Service

METRICS = str(Path(ts.__file__).with_name("configs") / "metrics.yaml")
SCRIPT = str(Path(ts.__file__).with_name("model_service_worker.py"))
END = b"\xff\xff\xff\xff"


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("!i", len(data)) + data


def load_message(folder: Path, handler: str, gpu: int = -1, envelope: str = "") -> bytes:
    size, gpu_id = struct.pack("!i", 3), struct.pack("!i", gpu)
    return b"L" + text("m") + text(str(folder)) + size + text(handler) + gpu_id + text(envelope) + b"\x01"


def predict_message(*requests: tuple[str, dict[str, str], list[tuple[str, str, bytes]]]) -> bytes:
    message = b"I"
    for request_id, headers, parameters in requests:
        message += text(request_id) + b"".join(text(name) + text(value) for name, value in headers.items()) + END
        message += b"".join(text(name) + text(mime) + text(value) for name, mime, value in parameters) + END
    return message + END


class Bytes:
    """A connection from which come these bytes, a few at a time."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)
        self.sent = b""

    def recv(self, size: int) -> bytes:
        return self._stream.read(min(size, 5))

    def sendall(self, data: bytes) -> None:
        self.sent += data


def context(*ids: str) -> Any:
    made = Context("m", ".", None, 1, None, "0")
    made.request_ids = dict(enumerate(ids))
    made.request_processor = [RequestProcessor({}) for _ in ids]
    return made


@pytest.mark.parametrize("gpu", [-1, 0, 3])
def test_load_messages(gpu: int) -> None:
    command, message = codec.retrieve_msg(Bytes(load_message(Path("/m"), "h.py", gpu, "body")))
    expected = {"modelName": b"m", "modelPath": b"/m", "batchSize": 3, "handler": b"h.py", "envelope": b"body"}
    assert command == codec.LOAD_MSG
    assert message == {**expected, **({"gpu": gpu} if gpu >= 0 else {}), "limitMaxImagePixels": True}


def test_predict_messages(caplog: pytest.LogCaptureFixture) -> None:
    parts = [
        ("a", "application/json", b'{"x": 1}'),
        ("b", "text/plain", "h\xe9".encode()),
        ("c", "", b"\xff\x00"),
        ("d", "application/json", b"{"),
        ("e", "text/csv", b"\xff"),
    ]
    command, requests = codec.retrieve_msg(Bytes(predict_message(("r0", {"X": "y"}, parts), ("r1", {}, []))))
    assert command == codec.PREDICT_MSG
    assert [request["requestId"] for request in requests] == [b"r0", b"r1"]
    assert requests[0]["headers"] == [{"name": b"X", "value": b"y"}]
    values = [parameter["value"] for parameter in requests[0]["parameters"]]
    assert values == [{"x": 1}, "h\xe9", b"\xff\x00", b"{", b"\xff"]
    assert [parameter["contentType"] for parameter in requests[0]["parameters"]] == [mime for _, mime, _ in parts]
    assert requests[1]["parameters"] == []
    assert [message for message in caplog.messages if "Forwarding" in message] == [
        "Failed json decoding of input data. Forwarding encoded payload",
        "Failed utf-8 decoding of input data. Forwarding encoded payload",
    ]


def test_decoding_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")
    data = predict_message(("r", {}, [("a", "application/json", b"1"), ("b", "text/plain", b"t")]))
    _, requests = codec.retrieve_msg(Bytes(data))
    assert [parameter["value"] for parameter in requests[0]["parameters"]] == [b"1", b"t"]


def test_other_commands_and_the_end() -> None:
    with pytest.raises(ValueError, match=r"Invalid command: .*U"):
        codec.retrieve_msg(Bytes(b"U"))
    for data in (b"", b"L\x00", b"I" + text("r")):
        with pytest.raises(SystemExit) as ended:
            codec.retrieve_msg(Bytes(data))
        assert ended.value.code == 0


def test_the_published_vectors() -> None:
    loaded = bytes.fromhex("000000c8 0000000c") + b"model_loaded" + END
    assert codec.create_load_model_response(200, "model_loaded") == loaded
    answered = (
        bytes.fromhex("000000c8 00000007") + b"success" + bytes.fromhex("0000000a") + b"request_id"
        + bytes.fromhex("00000000 000000c8 00000000 00000000 00000002") + b"OK" + END
    )  # fmt: skip
    assert codec.create_predict_response(["OK"], {0: "request_id"}, "success", 200) == answered


def test_other_ranks_answer_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert codec.create_predict_response(["OK"], {0: "r"}, "success", 200) is None
    send_intermediate_predict_response(["OK"], {0: "r"}, "", 200, context("r"))  # and has no socket to fail on


@pytest.mark.parametrize(
    ("element", "body"),
    [
        (b"\xff", b"\xff"),
        (bytearray(b"a"), b"a"),
        ("h\xe9", "h\xe9".encode()),
        ({"a": 1}, b'{\n  "a": 1\n}'),
        (None, b"null"),
    ],
)
def test_bodies(element: Any, body: bytes) -> None:
    assert response(codec.create_predict_response([element], {0: "r"}, "", 200))["r"]["body"] == body


def test_tensors_are_saved() -> None:
    body = response(codec.create_predict_response([torch.arange(3)], {0: "r"}, "", 200))["r"]["body"]
    assert torch.equal(torch.load(io.BytesIO(body)), torch.arange(3))


def test_what_cannot_be_encoded(caplog: pytest.LogCaptureFixture) -> None:
    found = response(codec.create_predict_response([{1}, "b"], {0: "r0", 1: "r1"}, "fine", 200))
    assert (found["code"], found["message"]) == (503, "Unsupported model output data type.")
    assert [found[name]["body"] for name in ("r0", "r1")] == [b"error", b"error"]
    assert "Unable to serialize model output." in caplog.messages


def test_heads_come_from_the_context() -> None:
    given = context("r0", "r1")
    given.set_response_status(404, "N\xf6", 0)
    given.set_response_content_type(0, "text/plain")
    given.set_response_header(1, "X", "y")
    found = response(codec.create_predict_response(["a", "b"], given.request_ids, "", 200, given))
    assert found["r0"] | {"body": b""} == {
        "type": "text/plain", "status": 404, "phrase": "N\xf6", "headers": {"content-type": "text/plain"}, "body": b""
    }  # fmt: skip
    assert (found["r1"]["status"], found["r1"]["headers"]) == (200, {"X": "y"})
    assert codec.encode_response_headers({"X": "y"}) == bytes.fromhex("00000001") + text("X") + text("y")


def test_marks_of_streams() -> None:
    given = context("r")
    given.cl_socket = socket_double = Bytes(b"")
    send_intermediate_predict_response(["piece"], given.request_ids, "Intermediate", 200, given)
    assert response(socket_double.sent)["r"]["headers"] == {"ts_stream_next": "true"}
    last = codec.create_predict_response(["end"], given.request_ids, "", 200, given)
    assert response(last)["r"]["headers"] == {"ts_stream_next": "false"}


def test_the_old_location_warns() -> None:
    given = context("r")
    given.cl_socket = Bytes(b"")
    with pytest.warns(PendingDeprecationWarning, match=r"deprecated in 1.0 and moved to ts.handler_utils.utils"):
        codec.send_intermediate_predict_response(["piece"], given.request_ids, "", 200, given)
    assert given.cl_socket.sent


@pytest.mark.parametrize(
    ("finished", "mark"), [(None, {}), (True, {"ts_stream_next": "false"}), (False, {"ts_stream_next": "true"})]
)
def test_stopping_criteria(finished: bool | None, mark: dict[str, str]) -> None:
    given = context("r")
    given.stopping_criteria = [lambda result: finished if result == "x" else not finished]
    found = response(codec.create_predict_response(["x"], given.request_ids, "", 200, given))
    assert found["r"]["headers"] == mark


def response(data: bytes | None) -> dict[str, Any]:
    """One message of a worker: code, message, and the answer under each request's id."""
    assert data is not None
    stream = io.BytesIO(data)

    def number() -> int:
        return int(struct.unpack("!i", stream.read(4))[0])

    def sized() -> bytes:
        return stream.read(number())

    found: dict[str, Any] = {"code": number(), "message": sized().decode()}
    while (length := number()) != -1:
        name = stream.read(length).decode()
        head = {"type": sized().decode(), "status": number(), "phrase": sized().decode()}
        headers = {sized().decode(): sized().decode() for _ in range(number())}
        found[name] = {**head, "headers": headers, "body": sized()}
    assert not stream.read()
    return found


HANDLER = """
from ts.utils.util import PredictionException

def handle(data, context):
    if data is None:
        if context.model_name == "none":
            raise MemoryError
        return
    body = data[0].get("body", "")
    if body == "streaming":
        from ts.handler_utils.utils import send_intermediate_predict_response
        send_intermediate_predict_response(["piece"], context.request_ids, "", 200, context)
    outcomes = {"memory": MemoryError(), "cuda": ValueError("CUDA x"), "bad": ValueError("x"),
                "teapot": PredictionException("tea", 418)}
    if body in outcomes:
        raise outcomes[body]
    if body == "tuple":
        return tuple(data)
    if body == "short":
        return []
    return [{"row": row, "header": context.get_request_header(i, "X")} for i, row in enumerate(data)]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "classic.py").write_text(HANDLER)
    yield tmp_path
    sys.modules.pop("classic", None)


def metrics() -> MetricsCacheYamlImpl:
    made = MetricsCacheYamlImpl(METRICS)
    made.initialize_cache()
    return made


def load(folder: Path, handler: str = "classic.py", **changes: Any) -> Service:
    return ModelLoaderFactory.get_model_loader().load("m", str(folder), handler, None, 1, **changes)


def requests(*bodies: str) -> list[dict[str, Any]]:
    rows = [[{"name": "body", "contentType": "text/plain", "value": body}] for body in bodies]
    headers = [{"name": b"X", "value": b"y"}]
    return [{"requestId": b"r%d" % i, "headers": headers, "parameters": row} for i, row in enumerate(rows)]


def test_a_service_answers(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = load(folder, metrics_cache=metrics())
    with caplog.at_level(logging.INFO):
        found = response(service.predict(requests("a", "b")))
    assert (found["code"], found["message"]) == (200, "Prediction success")
    assert json.loads(found["r1"]["body"]) == {"row": {"body": "b"}, "header": "y"}
    (line,) = [message for message in caplog.messages if message.startswith("[METRICS]PredictionTime.Milliseconds:")]
    assert line.endswith(",r0,r1")
    assert "ModelName:m,Level:Model" in line


@pytest.mark.parametrize(
    ("body", "code", "message", "line"),
    [
        ("memory", 507, "Out of resources", "System out of memory"),
        ("cuda", 507, "Out of resources", "CUDA out of memory"),
        ("bad", 503, "Prediction failed", "Invoking custom service failed."),
        ("teapot", 418, "tea", "Prediction error"),
        ("tuple", 503, "Invalid model predict output", "model: m, Invalid return type: <class 'tuple'>."),
        ("short", 503, "number of batch response mismatched",
         "model: m, number of batch response mismatched, expect: 1, got: 0."),
    ],
)  # fmt: skip
def test_a_service_refuses(
    folder: Path, caplog: pytest.LogCaptureFixture, body: str, code: int, message: str, line: str
) -> None:
    found = response(load(folder).predict(requests(body)))
    assert (found["code"], found["message"], found["r0"]["body"]) == (code, message, b"error")
    assert found["r0"]["status"] == code
    assert line in caplog.messages


def test_requests_for_a_service() -> None:
    headers, rows, ids = Service.retrieve_data_for_inference(requests("a"))
    assert headers[0].get_request_properties() == {"body": {"content-type": "text/plain"}, "X": "y"}
    assert (rows, ids) == ([{"body": "a"}], {0: "r0"})
    with pytest.raises(ValueError, match="Received invalid inputs"):
        Service.retrieve_data_for_inference(None)


def test_the_context_of_a_service(folder: Path) -> None:
    (folder / "MAR-INF").mkdir()
    manifest = {"model": {"modelName": "m", "configFile": "c.yaml"}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "c.yaml").write_text("handler:\n  n: 1\n")
    given = load(folder).context
    assert (given.manifest, given.model_yaml_config) == (manifest, {"handler": {"n": 1}})
    assert given.system_properties["batch_size"] == 1


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("class A: pass\nclass B: pass\n", ValueError, "Expected only one class in custom service code"),
        ("class A:\n    def initialize(self, context): pass\n", ValueError, "Expect handle method in class"),
        ("class A:\n    def handle(self, data, context): pass\n", AttributeError, "no attribute 'initialize'"),
        ("import no_such_module\n", ModuleNotFoundError, "no_such_module"),
        (None, ModuleNotFoundError, "No module named 'ts.torch_handler.classic"),
    ],
)
def test_handlers_that_cannot_be_loaded(folder: Path, source: str | None, error: type[Exception], message: str) -> None:
    (folder / "classic.py").write_text(source) if source else (folder / "classic.py").unlink()
    with pytest.raises(error, match=message):
        load(folder)


def test_an_envelope_around_a_service(folder: Path) -> None:
    service = load(folder, envelope="kserve")
    batch = requests("x")
    batch[0]["parameters"][0]["value"] = {"instances": [{"body": 1}]}
    answer = json.loads(response(service.predict(batch))["r0"]["body"])
    assert answer == {"predictions": [{"row": {"body": 1}, "header": "y"}]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Incomplete data provided"),
        ({"s_type": "other"}, "Incomplete data provided"),
        ({"s_type": "unix"}, "No socket name given"),
        ({"s_type": "tcp"}, "No socket port given"),
    ],
)
def test_workers_without_a_place(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TorchModelServiceWorker(**arguments)  # type: ignore[arg-type]


def worker(folder: Path, **changes: Any) -> TorchModelServiceWorker:
    made = TorchModelServiceWorker("unix", str(folder / "s.9000"), metrics_config=METRICS, **changes)
    made.sock.close()
    return made


def test_a_connection(folder: Path) -> None:
    bodies = [("body", "text/plain", b"a")]
    connection = Bytes(load_message(folder, "classic.py") + predict_message(("r0", {}, bodies)))
    with pytest.raises(SystemExit):
        worker(folder).handle_connection(connection)
    loaded = codec.create_load_model_response(200, "loaded model m")
    assert connection.sent.startswith(loaded)
    assert response(connection.sent[len(loaded) :])["code"] == 200


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("raise MemoryError", 507, "System out of memory"),
        ("raise RuntimeError('CUDA x')", 507, "System out of memory"),
        ("raise RuntimeError('x')", 500, "Unknown exception"),
    ],
)
def test_a_model_that_does_not_load(folder: Path, source: str, code: int, message: str) -> None:
    (folder / "classic.py").write_text(f"def handle(data, context):\n    {source}\n")
    connection = Bytes(load_message(folder, "classic.py"))
    with pytest.raises(RuntimeError, match=f"{code} - {message}"):
        worker(folder).handle_connection(connection)
    assert connection.sent == codec.create_load_model_response(code, message)


def test_requests_before_the_model(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"Received command: .*, but service is not loaded"):
        worker(folder).handle_connection(Bytes(predict_message()))


ASYNC = """
import asyncio

class Slow:
    def initialize(self, context):
        self.loop = asyncio.get_event_loop_policy().get_event_loop()
        self.quick = asyncio.Event()

    async def handle(self, data, context):
        assert asyncio.get_running_loop() is self.loop
        if data[0]["body"] == "slow":
            await self.quick.wait()
        elif data[0]["body"] == "bad":
            raise ValueError
        else:
            self.quick.set()
        await asyncio.sleep(0)
        return [context.get_request_id(0)]
"""


def test_an_asynchronous_connection(folder: Path) -> None:
    """The slow request waits for the quick one that comes after it; a failure is answered to its own request."""
    (folder / "classic.py").write_text(ASYNC)
    made = worker(folder, async_comm=True)
    ours, theirs = socket.socketpair()
    ended: list[BaseException] = []

    def serve() -> None:
        try:
            made.handle_connection_async(theirs)
        except SystemExit as error:
            ended.append(error)
        finally:
            asyncio.get_event_loop_policy().get_event_loop().close()
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    ours.sendall(load_message(folder, "classic.py"))
    loaded = codec.create_load_model_response(200, "loaded model m")
    assert ours.recv(len(loaded), socket.MSG_WAITALL) == loaded
    for name, body in (("r0", b"slow"), ("r1", b"bad"), ("r2", b"quick")):
        ours.sendall(predict_message((name, {}, [("body", "text/plain", body)])))
    found: dict[str, int] = {}
    data = b""
    while len(found) < 3:
        data += ours.recv(4096)
        while END in data:
            message, data = data[: data.index(END) + 4], data[data.index(END) + 4 :]
            answer = response(message)
            (name,) = answer.keys() - {"code", "message"}
            found[name] = answer["code"]
    ours.close()
    thread.join(60)
    assert found == {"r0": 200, "r1": 503, "r2": 200}
    assert len(ended) == 1


def test_the_script(folder: Path) -> None:
    name = folder / "sock.9000"
    command = [sys.executable, SCRIPT, "--sock-type", "unix", "--sock-name", str(name), "--metrics-config", METRICS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        try:
            assert process.stdout is not None
            lines = list(until(process.stdout, lambda line: line.startswith("Python runtime")))
            assert f"[PID]{process.pid}\n" in lines
            assert "Torch worker started.\n" in lines
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(name))
                connection.sendall(load_message(folder, "classic.py"))
                loaded = codec.create_load_model_response(200, "loaded model m")
                assert connection.recv(len(loaded), socket.MSG_WAITALL) == loaded
            assert process.wait(60) == 0
            assert not name.exists()
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)


def until(lines: Any, last: Callable[[str], bool]) -> Iterator[str]:
    for line in lines:
        yield line
        if last(line):
            return
