"""The messages are what clients have, byte for byte, and nobody's stubs clash with them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool

from harness.stubs import PROTOS, message, module
from modelserver.rpc import messages
from modelserver.rpc.encoding import prediction_request, prediction_response, stream_infer_response

_INFERENCE, _MANAGEMENT = "org.pytorch.serve.grpc.inference", "org.pytorch.serve.grpc.management"
# Message -> its fields as (number, name, type, label); types and labels as descriptors number them.
STRING, BYTES, BOOL, INT32, MESSAGE = 9, 12, 8, 5, 11
INT64, UINT32, UINT64, FLOAT, DOUBLE = 3, 13, 4, 2, 1
_CHOICE = "parameter_choice"
_TENSOR = [(1, "name", STRING, ""), (2, "datatype", STRING, ""), (3, "shape", INT64, "repeated")]
_DATA = [*_TENSOR, (4, "parameters", MESSAGE, "map"), (5, "contents", MESSAGE, "")]
_NAMED = [(1, "name", STRING, ""), (2, "version", STRING, "")]
_PARAMETER = [
    (1, "bool_param", BOOL, _CHOICE),
    (2, "int64_param", INT64, _CHOICE),
    (3, "string_param", STRING, _CHOICE),
]
_TO_REPOSITORY = [(1, "repository_name", STRING, ""), (2, "model_name", STRING, ""), (3, "parameters", MESSAGE, "map")]
OPEN_INFERENCE: dict[str, list[tuple[int, str, int, str]]] = {
    "ServerLiveRequest": [],
    "ServerReadyRequest": [],
    "ServerMetadataRequest": [],
    "ServerLiveResponse": [(1, "live", BOOL, "")],
    "ServerReadyResponse": [(1, "ready", BOOL, "")],
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": [(1, "ready", BOOL, "")],
    "ServerMetadataResponse": [*_NAMED, (3, "extensions", STRING, "repeated")],
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse": [
        (1, "name", STRING, ""),
        (2, "versions", STRING, "repeated"),
        (3, "platform", STRING, ""),
        (4, "inputs", MESSAGE, "repeated"),
        (5, "outputs", MESSAGE, "repeated"),
    ],
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelInferRequest": [
        (1, "model_name", STRING, ""),
        (2, "model_version", STRING, ""),
        (3, "id", STRING, ""),
        (4, "parameters", MESSAGE, "map"),
        (5, "inputs", MESSAGE, "repeated"),
        (6, "outputs", MESSAGE, "repeated"),
        (7, "raw_input_contents", BYTES, "repeated"),
    ],
    "ModelInferRequest.InferInputTensor": _DATA,
    "ModelInferRequest.InferRequestedOutputTensor": [(1, "name", STRING, ""), (2, "parameters", MESSAGE, "map")],
    "ModelInferResponse": [
        (1, "model_name", STRING, ""),
        (2, "model_version", STRING, ""),
        (3, "id", STRING, ""),
        (4, "parameters", MESSAGE, "map"),
        (5, "outputs", MESSAGE, "repeated"),
        (6, "raw_output_contents", BYTES, "repeated"),
    ],
    "ModelInferResponse.InferOutputTensor": _DATA,
    "InferTensorContents": [
        (1, "bool_contents", BOOL, "repeated"),
        (2, "int_contents", INT32, "repeated"),
        (3, "int64_contents", INT64, "repeated"),
        (4, "uint_contents", UINT32, "repeated"),
        (5, "uint64_contents", UINT64, "repeated"),
        (6, "fp32_contents", FLOAT, "repeated"),
        (7, "fp64_contents", DOUBLE, "repeated"),
        (8, "bytes_contents", BYTES, "repeated"),
    ],
}
STANDARD_ONLY: dict[str, list[tuple[int, str, int, str]]] = {
    "InferParameter": [*_PARAMETER, (4, "double_param", DOUBLE, _CHOICE), (5, "uint64_param", UINT64, _CHOICE)],
    "ModelRepositoryParameter": [*_PARAMETER, (4, "bytes_param", BYTES, _CHOICE)],
    "RepositoryIndexRequest": [(1, "repository_name", STRING, ""), (2, "ready", BOOL, "")],
    "RepositoryIndexResponse": [(1, "models", MESSAGE, "repeated")],
    "RepositoryIndexResponse.ModelIndex": [*_NAMED, (3, "state", STRING, ""), (4, "reason", STRING, "")],
    "RepositoryModelLoadRequest": _TO_REPOSITORY,
    "RepositoryModelUnloadRequest": _TO_REPOSITORY,
    "RepositoryModelLoadResponse": [(1, "model_name", STRING, ""), (2, "isLoaded", BOOL, "")],
    "RepositoryModelUnloadResponse": [(1, "model_name", STRING, ""), (2, "isUnloaded", BOOL, "")],
    "ModelStreamInferResponse": [(1, "error_message", STRING, ""), (2, "infer_response", MESSAGE, "")],
    "ModelStatisticsRequest": _NAMED,
    "ModelStatisticsResponse": [(1, "model_stats", MESSAGE, "repeated")],
    "ModelStatistics": [
        *_NAMED,
        (3, "last_inference", UINT64, ""),
        (4, "inference_count", UINT64, ""),
        (5, "execution_count", UINT64, ""),
        (6, "inference_stats", MESSAGE, ""),
        (7, "batch_stats", MESSAGE, "repeated"),
    ],
    "StatisticDuration": [(1, "count", UINT64, ""), (2, "ns", UINT64, "")],
    "InferStatistics": [
        (1, "success", MESSAGE, ""),
        (2, "fail", MESSAGE, ""),
        (3, "queue", MESSAGE, ""),
        (4, "compute_input", MESSAGE, ""),
        (5, "compute_infer", MESSAGE, ""),
        (6, "compute_output", MESSAGE, ""),
        (7, "cache_hit", MESSAGE, ""),
        (8, "cache_miss", MESSAGE, ""),
    ],
    "InferBatchStatistics": [
        (1, "batch_size", UINT64, ""),
        (2, "compute_input", MESSAGE, ""),
        (3, "compute_infer", MESSAGE, ""),
        (4, "compute_output", MESSAGE, ""),
    ],
}
_OPEN_INFERENCE = "org.pytorch.serve.grpc.openinference"
FIELDS = {
    f"{_INFERENCE}.PredictionsRequest": [
        (1, "model_name", STRING, ""),
        (2, "model_version", STRING, ""),
        (3, "input", MESSAGE, "map"),
        (4, "sequence_id", STRING, "optional"),
    ],
    f"{_INFERENCE}.PredictionResponse": [
        (1, "prediction", BYTES, ""),
        (2, "sequence_id", STRING, "optional"),
        (3, "status", MESSAGE, "optional"),
    ],
    f"{_INFERENCE}.TorchServeHealthResponse": [(1, "health", STRING, "")],
    f"{_MANAGEMENT}.ManagementResponse": [(1, "msg", STRING, "")],
    f"{_MANAGEMENT}.DescribeModelRequest": [
        (1, "model_name", STRING, ""),
        (2, "model_version", STRING, ""),
        (3, "customized", BOOL, ""),
    ],
    f"{_MANAGEMENT}.ListModelsRequest": [(1, "limit", INT32, ""), (2, "next_page_token", INT32, "")],
    f"{_MANAGEMENT}.RegisterModelRequest": [
        (1, "batch_size", INT32, ""),
        (2, "handler", STRING, ""),
        (3, "initial_workers", INT32, ""),
        (4, "max_batch_delay", INT32, ""),
        (5, "model_name", STRING, ""),
        (6, "response_timeout", INT32, ""),
        (7, "runtime", STRING, ""),
        (8, "synchronous", BOOL, ""),
        (9, "url", STRING, ""),
        (10, "s3_sse_kms", BOOL, ""),
        (11, "startup_timeout", INT32, ""),
    ],
    f"{_MANAGEMENT}.ScaleWorkerRequest": [
        (1, "model_name", STRING, ""),
        (2, "model_version", STRING, ""),
        (3, "max_worker", INT32, ""),
        (4, "min_worker", INT32, ""),
        (5, "number_gpu", INT32, ""),
        (6, "synchronous", BOOL, ""),
        (7, "timeout", INT32, ""),
    ],
    f"{_MANAGEMENT}.SetDefaultRequest": [(1, "model_name", STRING, ""), (2, "model_version", STRING, "")],
    f"{_MANAGEMENT}.UnregisterModelRequest": [(1, "model_name", STRING, ""), (2, "model_version", STRING, "")],
    "google.rpc.Status": [(1, "code", INT32, ""), (2, "message", STRING, ""), (3, "details", MESSAGE, "repeated")],
    "google.rpc.ErrorInfo": [(1, "reason", STRING, ""), (2, "domain", STRING, ""), (3, "metadata", MESSAGE, "map")],
    **{
        f"{package}.{name}": fields
        for package in (_OPEN_INFERENCE, "inference")
        for name, fields in OPEN_INFERENCE.items()
    },
    f"{_OPEN_INFERENCE}.InferParameter": _PARAMETER,
    **{f"inference.{name}": fields for name, fields in STANDARD_ONLY.items()},
}
CORE = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")


def _calls(package: str, *names: str) -> dict[str, tuple[str, str]]:
    return {name: (f"{package}.{name}Request", f"{package}.{name}Response") for name in names}


# Method -> request, response; `*` marks streams.
METHODS = {
    f"{_INFERENCE}.InferenceAPIsService": {
        "Ping": ("google.protobuf.Empty", f"{_INFERENCE}.TorchServeHealthResponse"),
        "Predictions": (f"{_INFERENCE}.PredictionsRequest", f"{_INFERENCE}.PredictionResponse"),
        "StreamPredictions": (f"{_INFERENCE}.PredictionsRequest", f"*{_INFERENCE}.PredictionResponse"),
        "StreamPredictions2": (f"*{_INFERENCE}.PredictionsRequest", f"*{_INFERENCE}.PredictionResponse"),
    },
    f"{_MANAGEMENT}.ManagementAPIsService": {
        name: (f"{_MANAGEMENT}.{name}Request", f"{_MANAGEMENT}.ManagementResponse")
        for name in ("DescribeModel", "ListModels", "RegisterModel", "ScaleWorker", "SetDefault", "UnregisterModel")
    },
    f"{_OPEN_INFERENCE}.GRPCInferenceService": _calls(_OPEN_INFERENCE, *CORE),
    "inference.GRPCInferenceService": {
        **_calls("inference", *CORE, "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
        **_calls("inference", "ModelStatistics"),
        "ModelStreamInfer": ("*inference.ModelInferRequest", "*inference.ModelStreamInferResponse"),
    },
}


def label_of(field: Any) -> str:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return "map"
    if field.is_repeated:
        return "repeated"
    choice = field.containing_oneof
    if choice is None:
        return ""
    return "optional" if choice.name.startswith("_") else str(choice.name)


@pytest.mark.check("grpc", 2)
@pytest.mark.parametrize("name", FIELDS)
def test_fields(name: str) -> None:
    fields = messages.POOL.FindMessageTypeByName(name).fields
    assert [(field.number, field.name, field.type, label_of(field)) for field in fields] == FIELDS[name]


@pytest.mark.check("grpc", 2)
@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    def shown(message: Any, *, stream: bool) -> str:
        return ("*" if stream else "") + str(message.full_name)

    found = {
        method.name: (
            shown(method.input_type, stream=method.client_streaming),
            shown(method.output_type, stream=method.server_streaming),
        )
        for method in messages.POOL.FindServiceByName(name).methods
    }
    assert found == METHODS[name]


def test_names_of_services() -> None:
    assert {
        messages.INFERENCE_SERVICE,
        messages.MANAGEMENT_SERVICE,
        messages.OPEN_INFERENCE_SERVICE,
        messages.TORCHSERVE_OPEN_INFERENCE_SERVICE,
    } == set(METHODS)


def test_maps() -> None:
    """Types of the values of maps."""
    inputs = messages.PredictionsRequest.DESCRIPTOR.fields_by_name["input"].message_type
    metadata = messages.ErrorInfo.DESCRIPTOR.fields_by_name["metadata"].message_type
    assert [field.type for field in inputs.fields] == [STRING, BYTES]
    assert [field.type for field in metadata.fields] == [STRING, STRING]


def test_the_module_is_what_the_script_writes() -> None:
    spec = importlib.util.spec_from_file_location("generate", PROTOS / "generate.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    wanted = script.python_module(script.compile_protos())
    assert Path(messages.__file__).read_text() == wanted, "run: python protos/generate.py"


def test_stubs_of_clients_live_beside_ours() -> None:
    theirs = message("PredictionsRequest").DESCRIPTOR
    ours = messages.PredictionsRequest.DESCRIPTOR
    assert theirs.full_name == ours.full_name and theirs is not ours
    assert messages.POOL is not descriptor_pool.Default()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 3_000_000])
@pytest.mark.parametrize("sequence_id", ["", "ts-seq-é"])
def test_responses_are_what_protobuf_would_write(size: int, sequence_id: str) -> None:
    body = b"x" * size
    wanted = message("PredictionResponse", prediction=body, sequence_id=sequence_id or None).SerializeToString()
    assert prediction_response(body, sequence_id) == wanted


@pytest.mark.parametrize("size", [0, 1, 127, 128, 3_000_000])
def test_responses_of_streams_are_what_protobuf_would_write(size: int) -> None:
    response = message("ModelInferResponse", id="7", raw_output_contents=[b"x" * size])
    wanted = message("ModelStreamInferResponse", infer_response=response).SerializeToString()
    assert stream_infer_response(response.SerializeToString()) == wanted


def test_requests_keep_their_order() -> None:
    sent = message("PredictionsRequest", model_name="m", model_version="2", sequence_id="s").SerializeToString()
    for key in ("b", "a", "c"):
        sent += module("inference_pb2").PredictionsRequest(input={key: key.encode()}).SerializeToString()
    request = prediction_request(sent)
    assert (request.model_name, request.model_version, request.sequence_id) == ("m", "2", "s")
    assert [(entry.key, entry.value) for entry in request.input] == [("b", b"b"), ("a", b"a"), ("c", b"c")]
