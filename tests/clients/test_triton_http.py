"""`tritonclient.http`, as its users call it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton

from clients.client_server import DOUBLE, DOUBLE_CONFIG, ECHO, SUMMED, SUMS, SUMS_CONFIG, program, serve
from harness.server import ServerProcess, eventually

VALUES: dict[str, Any] = {
    "FP32": np.array([[1.5, -2.0], [0.1, 3.0]], np.float32),
    "FP64": np.array([0.1, -1e300]),
    "FP16": np.array([0.5, -1.0, 65504.0], np.float16),
    "INT8": np.array([-128, 127], np.int8),
    "INT64": np.array([[-(2**63)], [2**63 - 1]], np.int64),
    "UINT64": np.array([0, 2**64 - 1], np.uint64),
    "BOOL": np.array([True, False, True]),
    "BYTES": np.array([b"ab", "ü".encode(), b""], np.object_),
}

# Datatype, whether the input is binary, and whether the output is wanted so (None: the client does not say). FP16 is
# sent and read in binary form only.
FORMS = [
    (datatype, input_binary, output_binary)
    for datatype in VALUES
    for input_binary in (True, False)
    for output_binary in (True, False, None)
    if datatype != "FP16" or (input_binary and output_binary is not False)
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    archives = {
        "echo": {"handler": ECHO},
        "double": {"handler": DOUBLE, "config": DOUBLE_CONFIG},
        "sums": {"handler": SUMS, "config": SUMS_CONFIG},
    }
    environment = {"TS_OPEN_INFERENCE_PROTOCOL": "oip"}
    yield from serve(tmp_path_factory.mktemp("server"), archives, environment=environment)


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(server.url().removeprefix("http://")) as client:
        yield client


def tensor(name: str, datatype: str, values: Any, *, binary: bool) -> Any:
    made = triton.InferInput(name, values.shape, datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def wanted(name: str, *, binary: bool) -> Any:
    return triton.InferRequestedOutput(name, binary_data=binary)


def check_same(found: Any, expected: Any) -> None:
    """The client reads BYTES of JSON as text."""
    if found.dtype == object:
        found = np.array([each if isinstance(each, bytes) else each.encode() for each in found], np.object_)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("binary", [False, True])
def test_sequences(client: Any, binary: bool) -> None:
    one = [tensor("x", "FP32", np.ones(1, np.float32), binary=binary)]
    sums = [client.infer("sums", one, **sequence).as_numpy("sum").tolist() for sequence, _ in SUMMED]
    assert sums == [[expected] for _, expected in SUMMED]


@pytest.mark.check("kserve", 11)
def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("echo") and client.is_model_ready("echo", "1.0")
    assert not client.is_model_ready("nope") and not client.is_model_ready("echo", "9")
    server = client.get_server_metadata()
    assert server["name"] == "Torchserve" and {"binary_tensor_data", "statistics"} <= set(server["extensions"])
    assert client.get_model_metadata("double", "1.0") == {
        "name": "double",
        "versions": ["1.0"],
        "platform": "",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "doubled", "datatype": "FP32", "shape": [-1, 2]}],
    }


def test_the_repository(client: Any) -> None:
    index = client.get_model_repository_index()
    assert [(entry["name"], entry["version"], entry["state"]) for entry in index] == [
        ("double", "1.0", "READY"),
        ("echo", "1.0", "READY"),
        ("sums", "1.0", "READY"),
    ]
    client.unload_model("double")
    assert not client.is_model_ready("double")
    client.load_model("double")
    assert client.is_model_ready("double")


@pytest.mark.check("kserve", 12)
@pytest.mark.parametrize(("datatype", "input_binary", "output_binary"), FORMS)
def test_there_and_back(client: Any, datatype: str, input_binary: bool, output_binary: bool | None) -> None:
    values = VALUES[datatype]
    inputs = [tensor("a", datatype, values, binary=input_binary)]
    outputs = None if output_binary is None else [wanted("out-a", binary=output_binary)]
    result = client.infer("echo", inputs, outputs=outputs, request_id="7")
    check_same(result.as_numpy("out-a"), values)
    assert (result.get_response()["id"], result.get_output("out-a")["datatype"]) == ("7", datatype)


@pytest.mark.check("kserve", 12)
def test_several_tensors_in_both_forms(client: Any) -> None:
    """Of three outputs two are asked for, in another order."""
    names = ("FP32", "INT64", "BYTES")
    inputs = [tensor(name, name, VALUES[name], binary=name != "INT64") for name in names]
    outputs = [wanted("out-BYTES", binary=True), wanted("out-FP32", binary=False)]
    result = client.infer("echo", inputs, outputs=outputs, model_version="1.0")
    check_same(result.as_numpy("out-BYTES"), VALUES["BYTES"])
    check_same(result.as_numpy("out-FP32"), VALUES["FP32"])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["out-BYTES", "out-FP32"]
    assert result.as_numpy("out-INT64") is None


@pytest.mark.parametrize("binary", [True, False])
def test_a_handler_that_knows_nothing_of_it(client: Any, binary: bool) -> None:
    values = VALUES["FP32"]
    result = client.infer("double", [tensor("x", "FP32", values, binary=binary)])
    check_same(result.as_numpy("doubled"), values * 2)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed(client: Any, encoding: str) -> None:
    inputs = [tensor("a", "FP32", VALUES["FP32"], binary=True)]
    options = {"request_compression_algorithm": encoding, "response_compression_algorithm": encoding}
    check_same(client.infer("echo", inputs, **options).as_numpy("out-a"), VALUES["FP32"])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_answers(server: ServerProcess, client: Any, encoding: str, binary: bool) -> None:
    """Long ones: the client undoes what it has asked for, and it is what is sent."""
    values = np.zeros((50, 100), np.float32)
    options = {"outputs": [wanted("doubled", binary=binary)], "response_compression_algorithm": encoding}
    found = client.infer("double", [tensor("x", "FP32", values.reshape(-1, 2), binary=True)], **options)
    check_same(found.as_numpy("doubled"), values.reshape(-1, 2))
    asked = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [500, 2], "data": [0] * 1000}]}
    answer = httpx.post(f"{server.url()}/v2/models/double/infer", json=asked, headers={"Accept-Encoding": encoding})
    assert answer.headers["content-encoding"] == encoding and int(answer.headers["content-length"]) < 500
    assert answer.json()["outputs"][0]["data"] == [0.0] * 1000


def test_at_the_same_time(client: Any) -> None:
    asked = [
        client.async_infer("echo", [tensor("a", "INT64", np.array([number], np.int64), binary=True)])
        for number in range(8)
    ]
    assert [request.get_result().as_numpy("out-a").tolist() for request in asked] == [[number] for number in range(8)]


@pytest.mark.check("kserve", 13)
def test_an_unknown_model(client: Any) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer("nope", [tensor("a", "FP32", VALUES["FP32"], binary=True)])
    assert (caught.value.message(), caught.value.status()) == ("Model not found: nope", "404")


@pytest.mark.parametrize(
    ("call", "status", "text"),
    [
        (lambda client: client.get_model_config("echo"), "501", "The model configuration extension is not supported"),
        (
            lambda client: client.get_system_shared_memory_status(),
            "501",
            "The shared memory extension is not supported",
        ),
        (
            lambda client: client.infer("double", [tensor("y", "FP32", VALUES["FP32"], binary=True)]),
            "400",
            "unknown input 'y': the model has 'x'",
        ),
    ],
)
def test_what_is_refused_can_be_read(client: Any, call: Any, status: str, text: str) -> None:
    with pytest.raises(triton.InferenceServerException) as caught:
        call(client)
    assert (caught.value.message(), caught.value.status()) == (text, status)


def test_statistics(client: Any) -> None:
    """Counted behind the answer."""

    def inferences() -> int:
        (entry,) = client.get_inference_statistics("echo", "1.0")["model_stats"]
        assert (entry["name"], entry["version"]) == ("echo", "1.0")
        return int(entry["inference_stats"]["success"]["count"])

    before = inferences()
    client.infer("echo", [tensor("a", "BOOL", VALUES["BOOL"], binary=True)])
    assert eventually(lambda: inferences() > before)
    every = client.get_inference_statistics()["model_stats"]
    assert [entry["name"] for entry in every] == ["double", "echo", "sums"]


def test_keys(tmp_path: Path) -> None:
    """The client sends what it is told to send with every request."""
    server = ServerProcess(
        tmp_path,
        flags=("--enable-model-api", "--ncs"),
        environment={"TS_OPEN_INFERENCE_PROTOCOL": "oip"},
        program=program(),
    )
    with server, triton.InferenceServerClient(server.url().removeprefix("http://")) as client:
        key = json.loads((tmp_path / "key_file.json").read_text())["inference"]["key"]
        assert not client.is_server_ready()
        assert client.is_server_ready(headers={"Authorization": f"Bearer {key}"})
        with pytest.raises(triton.InferenceServerException) as caught:
            client.get_model_repository_index()
        assert caught.value.status() == "400" and "token" in caught.value.message().lower()
