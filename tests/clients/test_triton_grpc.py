"""`tritonclient.grpc`, as its users call it."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from clients.client_server import COUNTING, DOUBLE, DOUBLE_CONFIG, ECHO, SUMMED, SUMS, SUMS_CONFIG, serve
from harness.server import DEADLINE, ServerProcess, eventually

VALUES: dict[str, Any] = {
    "FP32": np.array([[1.5, -2.0], [0.1, 3.0]], np.float32),
    "FP16": np.array([0.5, -1.0], np.float16),
    "INT64": np.array([-(2**63), 2**63 - 1], np.int64),
    "UINT8": np.array([0, 255], np.uint8),
    "BOOL": np.array([True, False, True]),
}

# BYTES reach a handler that knows the protocol as base64.
SPELLING = """
import base64


def handle(data, context):
    if data is None:
        return None
    answers = []
    for row in data:
        (tensor,) = row["body"]["inputs"]
        words = [base64.b64decode(element).decode().upper() for element in tensor["data"]]
        output = {"name": "loud", "datatype": "BYTES", "shape": [len(words)], "data": words}
        answers.append({"model_name": "spelling", "model_version": "1.0", "outputs": [output]})
    return answers
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    archives = {
        "echo": {"handler": ECHO},
        "double": {"handler": DOUBLE, "config": DOUBLE_CONFIG},
        "spelling": {"handler": SPELLING},
        "counting": {"handler": COUNTING},
        "sums": {"handler": SUMS, "config": SUMS_CONFIG},
    }
    environment = {"TS_OPEN_INFERENCE_PROTOCOL": "oip"}
    yield from serve(tmp_path_factory.mktemp("server"), archives, environment=environment)


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc_target()) as client:
        yield client


def tensor(name: str, datatype: str, values: Any) -> Any:
    made = triton.InferInput(name, values.shape, datatype)
    made.set_data_from_numpy(values)
    return made


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("echo") and client.is_model_ready("echo", "1.0")
    assert client.get_server_metadata().name == "Torchserve"
    metadata = client.get_model_metadata("double", as_json=True)
    assert (metadata["name"], metadata["versions"]) == ("double", ["1.0"])
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "2"]}]


def test_the_repository(client: Any) -> None:
    names = [model.name for model in client.get_model_repository_index().models]
    assert names == ["counting", "double", "echo", "spelling", "sums"]


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("datatype", VALUES)
def test_there_and_back(client: Any, datatype: str, encoding: str | None) -> None:
    values = VALUES[datatype]
    options = {"outputs": [triton.InferRequestedOutput("out-a")], "compression_algorithm": encoding}
    result = client.infer("echo", [tensor("a", datatype, values)], request_id="7", **options)
    found = result.as_numpy("out-a")
    assert found.dtype == values.dtype and result.get_response().id == "7"
    np.testing.assert_array_equal(found, values)


def test_text(client: Any) -> None:
    words = np.array([b"ab", "\u00fc".encode()], np.object_)
    result = client.infer("spelling", [tensor("words", "BYTES", words)])
    assert result.as_numpy("loud").tolist() == [b"AB", "\u00dc".encode()]


def test_sequences(client: Any) -> None:
    one = [tensor("x", "FP32", np.ones(1, np.float32))]
    sums = [client.infer("sums", one, **sequence).as_numpy("sum").tolist() for sequence, _ in SUMMED]
    assert sums == [[expected] for _, expected in SUMMED]


def test_a_handler_that_knows_nothing_of_it(client: Any) -> None:
    result = client.infer("double", [tensor("x", "FP32", VALUES["FP32"])])
    np.testing.assert_array_equal(result.as_numpy("doubled"), VALUES["FP32"] * 2)


def test_a_stream_of_requests(client: Any) -> None:
    """Answers come in the order of the requests, and one that fails does not end the stream."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    try:
        for number in range(4):
            client.async_stream_infer("echo", [tensor("a", "INT64", np.array([number], np.int64))])
        client.async_stream_infer("nope", [tensor("a", "INT64", np.array([4], np.int64))])
        client.async_stream_infer("echo", [tensor("a", "INT64", np.array([5], np.int64))])
        found = [answers.get(timeout=DEADLINE) for _ in range(6)]
    finally:
        client.stop_stream()
    refused = found.pop(4)
    assert isinstance(refused, triton.InferenceServerException) and "Model not found: nope" in refused.message()
    assert [answer.as_numpy("out-a").tolist() for answer in found] == [[0], [1], [2], [3], [5]]


def test_a_handler_that_streams(client: Any) -> None:
    """One request, several answers."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    try:
        client.async_stream_infer("counting", [tensor("a", "BOOL", VALUES["BOOL"])])
        found = [answers.get(timeout=DEADLINE) for _ in range(4)]
    finally:
        client.stop_stream()
    assert [answer.as_numpy("n").tolist() for answer in found] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    ("model", "name", "status", "text"),
    [
        ("nope", "a", "StatusCode.NOT_FOUND", "Model not found: nope"),
        ("double", "y", "StatusCode.INVALID_ARGUMENT", "unknown input 'y': the model has 'x'"),
    ],
)
def test_what_is_refused_can_be_read(client: Any, model: str, name: str, status: str, text: str) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer(model, [tensor(name, "FP32", VALUES["FP32"])])
    assert (caught.value.message(), caught.value.status()) == (text, status)


def test_statistics(client: Any) -> None:
    """Counted behind the answer."""

    def inferences() -> int:
        (entry,) = client.get_inference_statistics("echo", "1.0").model_stats
        assert (entry.name, entry.version) == ("echo", "1.0")
        return int(entry.inference_stats.success.count)

    before = inferences()
    client.infer("echo", [tensor("a", "BOOL", VALUES["BOOL"])])
    assert eventually(lambda: inferences() > before)


def test_the_metadata_of_calls(client: Any) -> None:
    """What gateways add does no harm where no key is asked for."""
    headers = {"authorization": "Bearer of-the-gateway"}
    result = client.infer("echo", [tensor("a", "BOOL", VALUES["BOOL"])], headers=headers)
    assert result.as_numpy("out-a").tolist() == [True, False, True]
