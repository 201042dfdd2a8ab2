"""Open Inference over gRPC: both services, every datatype in both forms, what handlers see and what clients get."""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.grpc_server import CLASS, FAILED, PATIENCE, GrpcServer, refused, start_grpc
from harness.archives import pack
from harness.stubs import message, module

check, fixed = pytest.mark.check, pytest.mark.fixed
Code = grpc.StatusCode
ON = {"ts_open_inference_protocol": "true"}
STANDARD, COMPAT = "inference", "org.pytorch.serve.grpc.openinference"
both = pytest.mark.parametrize("package", [COMPAT, pytest.param(STANDARD, marks=fixed("grpc standard service"))])

# Echoes inputs as outputs of the same names; the parameter `do` of the request says what else it does.
TENSORS = """
import json
import os

from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "describe") == "True":
        return [{}]
    return [answer(row["body"], index, context) for index, row in enumerate(data)]


def answer(body, index, context):
    do = body["inputs"][0]["name"] if body["inputs"] else ""
    if do == "text":
        return "not an object"
    if do == "raise":
        raise ValueError("no")
    if do == "exit":
        os._exit(1)
    if do == "no-outputs":
        return {"id": "1"}
    outputs = [dict(name=each["name"], datatype=each["datatype"], shape=each["shape"], data=each.get("data", []))
               for each in body["inputs"]]
    if do == "tell":
        told = {"body": body, "headers": context.get_all_request_header(index), "pid": os.getpid()}
        outputs = [{"name": "told", "datatype": "BYTES", "shape": [1], "data": [json.dumps(told)]}]
    if do == "bare":
        return {"outputs": outputs}
    if do == "nested":
        outputs = [{"name": "n", "datatype": "INT64", "shape": [2, 2], "data": [[1, 2], [3, 4]]}]
    if do == "text-out":
        outputs = [{"name": "t", "datatype": "BYTES", "shape": [2], "data": ["abc", 3]}]
    if do == "half":
        outputs = [{"name": "h", "datatype": "FP16", "shape": [2], "data": [1.5, -2.0]}]
    if do == "parameters":
        return {"model_name": "m", "model_version": 1.0, "id": body["id"], "outputs": outputs,
                "parameters": {"flag": True, "count": 3, "text": "x", "ratio": 0.5}}
    return {"model_name": body["model_name"], "model_version": "1.0", "id": body["id"], "outputs": outputs}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    with ExitStack() as stack:
        served = start_grpc(stack, tmp_path_factory.mktemp("server"), ON)
        pack(served.server.store, "tensors", TENSORS)
        assert served.server.register("tensors.mar").status_code == 200
        yield served


def stub(served: GrpcServer, package: str = STANDARD) -> Any:
    name = "grpc_predict_v2" if package == STANDARD else "open_inference_grpc"
    return module(f"{name}_pb2_grpc").GRPCInferenceServiceStub(served.channel())


def made(name: str, /, package: str = STANDARD, **fields: Any) -> Any:
    """A message of one of the two services."""
    source = "grpc_predict_v2_pb2" if package == STANDARD else "open_inference_grpc_pb2"
    return getattr(module(source), name)(**fields)


def ask(served: GrpcServer, method: str, package: str = STANDARD, **fields: Any) -> Any:
    """One call."""
    request = made(f"{method}Request", package, **fields)
    return getattr(stub(served, package), method)(request, timeout=PATIENCE)


def infer(served: GrpcServer, *inputs: dict[str, Any], package: str = STANDARD, **fields: Any) -> Any:
    """One inference by the model of these tests."""
    return ask(served, "ModelInfer", package, **{"model_name": "tensors", "inputs": inputs, **fields})


def tensor(name: str, datatype: str, shape: list[int], **contents: Any) -> dict[str, Any]:
    """An input; without contents for a request with raw ones."""
    return {"name": name, "datatype": datatype, "shape": shape, **({"contents": contents} if contents else {})}


def pid_of(served: GrpcServer) -> int:
    """Of the worker, from a good call."""
    (told,) = infer(served, tensor("tell", "INT8", [1], int_contents=[1])).outputs[0].contents.bytes_contents
    pid: int = json.loads(told)["pid"]
    return pid


@check("grpc", 28)
def test_switched_off_there_are_no_such_services(tmp_path: Path) -> None:
    with ExitStack() as stack:
        served = start_grpc(stack, tmp_path, oracle=False)
        for package in (STANDARD, COMPAT):
            with refused(Code.UNIMPLEMENTED, f"Method not found: {package}.GRPCInferenceService/ServerLive"):
                ask(served, "ServerLive", package)


@check("grpc", 28)
@fixed("grpc standard service")
def test_the_environment_switches_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TS_OPEN_INFERENCE_PROTOCOL", "oip")
    with ExitStack() as stack:
        served = start_grpc(stack, tmp_path, oracle=False)
        for package in (STANDARD, COMPAT):
            assert ask(served, "ServerLive", package).live
        path = f"/{STANDARD}.GRPCInferenceService/ServerLive"
        with refused(Code.UNIMPLEMENTED, f"Method not found: {path[1:]}"):
            served.channel("management").unary_unary(path)(b"", timeout=PATIENCE)


@both
def test_health(served: GrpcServer, package: str) -> None:
    assert ask(served, "ServerLive", package).live
    assert ask(served, "ServerReady", package).ready
    assert ask(served, "ModelReady", package, name="tensors").ready


@check("grpc", 34)
@both
def test_models(served: GrpcServer, package: str) -> None:
    told = ask(served, "ModelMetadata", package, name="tensors", version="1.0")
    assert (told.name, list(told.versions), told.platform) == ("tensors", ["1.0"], "")
    assert not told.inputs and not told.outputs
    tag = f"\n{CLASS}archive.model.ModelNotFoundException" if package == COMPAT else ""
    for method in ("ModelReady", "ModelMetadata"):
        with refused(Code.NOT_FOUND, f"Model not found: nope{tag}"):
            ask(served, method, package, name="nope")


@check("grpc", 34)
@fixed("grpc ready models")
def test_a_model_without_workers_is_not_ready(served: GrpcServer) -> None:
    pack(served.server.store, "idle", "def handle(data, context):\n    return data and ['ok']\n")
    assert served.server.register("idle.mar", workers=0).status_code == 200
    for package in (STANDARD, COMPAT):
        assert not ask(served, "ModelReady", package, name="idle").ready
    assert served.server.delete("idle").status_code == 200


@check("grpc", 30)
@fixed("grpc server metadata")
def test_the_server_tells_about_itself(served: GrpcServer) -> None:
    for package in (STANDARD, COMPAT):
        told = ask(served, "ServerMetadata", package)
        assert told.name == "Torchserve" and told.version and list(told.extensions) == ["kserve", "kubeflow"]


@fixed("grpc standard service")
def test_statistics(served: GrpcServer) -> None:
    pack(served.server.store, "counted", TENSORS)
    assert served.server.register("counted.mar").status_code == 200
    try:
        infer(served, tensor("x", "INT8", [1], int_contents=[1]), model_name="counted")
        with refused(Code.INTERNAL):
            infer(served, tensor("raise", "INT8", [1], int_contents=[1]), model_name="counted")
        (told,) = ask(served, "ModelStatistics", name="counted", version="1.0").model_stats
        assert (told.name, told.version, told.inference_count, told.execution_count) == ("counted", "1.0", 1, 1)
        times = told.inference_stats
        assert (times.success.count, times.fail.count, times.compute_infer.count) == (1, 1, 1)
        assert 0 < times.queue.ns < times.success.ns and told.last_inference
        assert {each.name for each in ask(served, "ModelStatistics").model_stats} >= {"counted", "tensors"}
    finally:
        assert served.server.delete("counted").status_code == 200
    with refused(Code.NOT_FOUND, "Model not found: counted"):
        ask(served, "ModelStatistics", name="counted")


def test_what_the_handler_sees(served: GrpcServer) -> None:
    package = COMPAT
    inputs = [
        tensor("tell", "FP32", [1, 3], fp32_contents=[1, 2.5, 0.1]),
        tensor("b", "BOOL", [1], bool_contents=[True]),
    ]
    answer = infer(served, *inputs, package=package, id="42")
    told = json.loads(json.loads(answer.outputs[0].contents.bytes_contents[0]))
    assert told["headers"]["body"] == {"content-type": "application/json"}
    body = told["body"]
    assert (body["model_name"], body["id"]) == ("tensors", "42")
    assert body["inputs"] == [
        {"name": "tell", "shape": [1, 3], "datatype": "FP32", "data": [1.0, 2.5, 0.1]},
        {"name": "b", "shape": [1], "datatype": "BOOL", "data": [True]},
    ]
    assert answer.id == "42" and answer.model_name == "tensors" and answer.model_version == "1.0"


@fixed("grpc standard service")
def test_handlers_see_parameters_and_the_names_of_outputs(served: GrpcServer) -> None:
    answer = infer(
        served,
        tensor("tell", "INT8", [1], int_contents=[1]),
        parameters={"priority": {"uint64_param": 2**63}, "text": {"string_param": "x"}, "ratio": {"double_param": 0.5}},
        outputs=[{"name": "told"}],
    )
    body = json.loads(answer.outputs[0].contents.bytes_contents[0])["body"]
    assert body["parameters"] == {"priority": 2**63, "text": "x", "ratio": 0.5}
    assert [output["name"] for output in body["outputs"]] == ["told"]


TYPED = [
    ("BOOL", "bool_contents", [True, False]),
    ("INT8", "int_contents", [-128, 127]),
    ("INT16", "int_contents", [-(2**15), 2**15 - 1]),
    ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
    ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
    ("UINT8", "uint_contents", [0, 255]),
    ("UINT16", "uint_contents", [0, 2**16 - 1]),
    pytest.param("UINT32", "uint_contents", [0, 2**32 - 1], marks=fixed("grpc unsigned tensors")),
    pytest.param("UINT64", "uint64_contents", [0, 2**64 - 1], marks=fixed("grpc unsigned tensors")),
    ("FP32", "fp32_contents", [0.5, struct.unpack("<f", struct.pack("<f", 0.1))[0]]),
    ("FP64", "fp64_contents", [0.1, -1e300]),
]


@check("grpc", 29)
@both
@pytest.mark.parametrize(("datatype", "field", "values"), TYPED)
def test_typed_tensors(served: GrpcServer, package: str, datatype: str, field: str, values: list[Any]) -> None:
    answer = infer(served, tensor("x", datatype, [2], **{field: values}), package=package, id="7")
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("x", datatype, [2])
    assert list(getattr(output.contents, field)) == values and not answer.raw_output_contents


@check("grpc", 29)
def test_texts_that_come_typed(served: GrpcServer) -> None:
    """Handlers get base64; TorchServe's service sends texts as JSON, with their quotes."""
    output = infer(served, tensor("x", "BYTES", [1], bytes_contents=[b"abc"]), package=COMPAT, id="7").outputs[0]
    assert list(output.contents.bytes_contents) == [b'"YWJj"']
    output = infer(served, tensor("text-out", "INT8", [1], int_contents=[1]), package=COMPAT, id="7").outputs[0]
    assert list(output.contents.bytes_contents) == [b'"abc"', b"3"]


@check("grpc", 31)
@fixed("grpc standard service")
def test_texts_of_the_standard_service(served: GrpcServer) -> None:
    (output,) = infer(served, tensor("x", "BYTES", [1], bytes_contents=[b"abc"])).outputs
    assert list(output.contents.bytes_contents) == [b"YWJj"]
    (output,) = infer(served, tensor("text-out", "INT8", [1], int_contents=[1])).outputs
    assert list(output.contents.bytes_contents) == [b"abc", b"3"]


def lengths_and(*texts: bytes) -> bytes:
    """BYTES as raw contents."""
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


RAW = [
    ("BOOL", struct.pack("<2?", True, False)),
    ("INT8", struct.pack("<2b", -128, 127)),
    ("INT16", struct.pack("<2h", -5, 5)),
    ("INT32", struct.pack("<2i", -5, 5)),
    ("INT64", struct.pack("<2q", -(2**63), 5)),
    ("UINT8", struct.pack("<2B", 0, 255)),
    ("UINT16", struct.pack("<2H", 0, 65535)),
    ("UINT32", struct.pack("<2I", 0, 2**32 - 1)),
    ("UINT64", struct.pack("<2Q", 0, 2**64 - 1)),
    ("FP16", struct.pack("<2e", 0.5, -2.0)),
    ("BF16", struct.pack("<2H", 0x3F00, 0xC000)),
    ("FP32", struct.pack("<2f", 0.1, float("inf"))),
    ("FP64", struct.pack("<2d", 0.1, -1e300)),
]


@check("grpc", 30)
@check("grpc", 31)
@fixed("grpc raw tensors")
@pytest.mark.parametrize("package", [STANDARD, COMPAT])
@pytest.mark.parametrize(("datatype", "raw"), RAW, ids=[datatype for datatype, _ in RAW])
def test_raw_tensors(served: GrpcServer, package: str, datatype: str, raw: bytes) -> None:
    answer = infer(served, tensor("x", datatype, [2]), package=package, raw_input_contents=[raw])
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("x", datatype, [2])
    assert list(answer.raw_output_contents) == [raw] and not output.HasField("contents")


@check("grpc", 30)
@fixed("grpc raw tensors")
@pytest.mark.parametrize("package", [STANDARD, COMPAT])
def test_raw_texts(served: GrpcServer, package: str) -> None:
    """They come back as the text that the handler has seen, never with quotes."""
    sent = [b"ab", "é".encode()]
    inputs = tensor("x", "BYTES", [2])
    answer = infer(served, inputs, package=package, raw_input_contents=[lengths_and(*sent)])
    assert list(answer.raw_output_contents) == [lengths_and(*map(base64.b64encode, sent))]


@fixed("grpc raw tensors")
def test_half_precision_leaves_raw(served: GrpcServer) -> None:
    answer = infer(served, tensor("half", "INT8", [1], int_contents=[1]))
    assert list(answer.raw_output_contents) == [struct.pack("<2e", 1.5, -2.0)]


@fixed("grpc raw tensors")
def test_empty_tensors(served: GrpcServer) -> None:
    answer = infer(served, tensor("x", "FP32", [0]), raw_input_contents=[b""])
    assert list(answer.raw_output_contents) == [b""]


@check("grpc", 32)
@fixed("grpc raw tensors")
@pytest.mark.parametrize("package", [STANDARD, COMPAT])
@pytest.mark.parametrize(
    ("inputs", "raw"),
    [
        ([tensor("pixels", "FP32", [2])], [b"\0" * 7]),
        ([tensor("pixels", "FP32", [2])], [b"\0" * 12]),
        ([tensor("pixels", "FP32", [2**40, 2**40])], [b"\0" * 8]),
        ([tensor("pixels", "FP32", [2])], [b"\0" * 8, b""]),
        ([tensor("pixels", "FP32", [2]), tensor("more", "FP32", [2])], [b"\0" * 8]),
        ([tensor("pixels", "FP32", [2], fp32_contents=[1, 2])], [b"\0" * 8]),
        ([tensor("pixels", "BYTES", [2])], [b"\x01\0\0\0a"]),
        ([tensor("pixels", "BYTES", [1])], [b"\xff\xff\xff\xffa"]),
        ([tensor("pixels", "FP16", [1], fp32_contents=[1.0])], []),
        ([tensor("pixels", "BF16", [1], fp32_contents=[1.0])], []),
    ],
)
def test_tensors_that_are_none(served: GrpcServer, package: str, inputs: list[Any], raw: list[bytes]) -> None:
    pid = pid_of(served)
    with pytest.raises(grpc.RpcError) as refusal:
        infer(served, *inputs, package=package, raw_input_contents=raw)
    details = refusal.value.details()
    assert refusal.value.code() is Code.INVALID_ARGUMENT and ("pixels" in details or "raw_input_contents" in details)
    assert pid_of(served) == pid


@fixed("grpc standard service")
def test_datatypes_that_nobody_knows(served: GrpcServer) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        infer(served, tensor("x", "COMPLEX", [1]))
    assert refusal.value.code() is Code.INVALID_ARGUMENT and "COMPLEX" in refusal.value.details()


@check("grpc", 33)
@fixed("grpc results of tensors")
@pytest.mark.parametrize("package", [STANDARD, COMPAT])
@pytest.mark.parametrize("deed", ["text", "no-outputs"])
def test_results_that_are_none(served: GrpcServer, package: str, deed: str) -> None:
    pid = pid_of(served)
    with pytest.raises(grpc.RpcError) as refusal:
        infer(served, tensor(deed, "INT8", [1], int_contents=[1]), package=package)
    assert refusal.value.code() is Code.INTERNAL
    assert refusal.value.details().endswith(f"\n{CLASS}http.InternalServerException") is (package == COMPAT)
    assert pid_of(served) == pid


@fixed("grpc results of tensors")
def test_results_that_lack_something(served: GrpcServer) -> None:
    answer = infer(served, tensor("bare", "INT8", [1], int_contents=[1]), id="9")
    assert (answer.id, answer.model_name, answer.model_version) == ("9", "tensors", "1.0")
    answer = infer(served, tensor("nested", "INT8", [1], int_contents=[1]))
    assert list(answer.outputs[0].contents.int64_contents) == [1, 2, 3, 4]
    assert len(answer.id) in (0, 36)


@fixed("grpc standard service")
def test_parameters_of_responses(served: GrpcServer) -> None:
    told = infer(served, tensor("parameters", "INT8", [1], int_contents=[1]), id="9").parameters
    kinds = {name: (value.WhichOneof("parameter_choice")) for name, value in told.items()}
    assert kinds == {"flag": "bool_param", "count": "int64_param", "text": "string_param", "ratio": "double_param"}


def test_errors_in_torchserves_words(served: GrpcServer) -> None:
    for fields, code, text in (
        ({"model_name": "nope"}, Code.INTERNAL, f"Model not found: nope\n{CLASS}archive.model.ModelNotFoundException"),
        ({"model_name": ""}, Code.INTERNAL, "Parameter model_name is required.\nBadRequestException.()"),
        ({"inputs": [tensor("raise", "INT8", [1], int_contents=[1])]}, Code.UNAVAILABLE, FAILED),
    ):
        with refused(code, text):
            infer(served, package=COMPAT, id="1", **fields)


@fixed("grpc standard service")
def test_errors_in_standard_words(served: GrpcServer) -> None:
    pid = pid_of(served)
    for fields, code, text in (
        ({"model_name": "nope"}, Code.NOT_FOUND, "Model not found: nope"),
        ({"model_version": "9"}, Code.NOT_FOUND, "Model version: 9 does not exist for model: tensors"),
        ({"model_name": ""}, Code.INVALID_ARGUMENT, "Parameter model_name is required."),
        ({"inputs": [tensor("raise", "INT8", [1], int_contents=[1])]}, Code.INTERNAL, "Prediction failed"),
    ):
        with refused(code, text):
            infer(served, **fields)
    assert pid_of(served) == pid


@fixed("grpc standard service")
def test_streams_of_inferences(served: GrpcServer) -> None:
    """Answers come in order, and no request ends the stream."""
    names = ["one", "raise", "text", "two"]
    requests = [
        message(
            "ModelInferRequest",
            model_name="tensors",
            id=name,
            inputs=[tensor(name, "INT8", [1], int_contents=[1])],
        )
        for name in names
    ]
    nowhere = message("ModelInferRequest", model_name="nope", id="nowhere")
    answers = list(stub(served).ModelStreamInfer(iter([*requests, nowhere]), timeout=PATIENCE))
    assert [answer.infer_response.id for answer in answers] == [*names, "nowhere"]
    assert [bool(answer.error_message) for answer in answers] == [False, True, True, False, True]
    assert answers[1].error_message == "Prediction failed" and answers[4].error_message == "Model not found: nope"


@check("grpc", 35)
@fixed("grpc standard service")
@pytest.mark.parametrize("field", ["repository_name", "model_name"])
def test_the_repository(served: GrpcServer, field: str) -> None:
    """KServe's clients have the name in the first field, Triton's in the second."""
    if not (served.server.store / "guest.mar").exists():
        pack(served.server.store, "guest", "def handle(data, context):\n    return data and ['ok']\n")

    def index(*, ready: bool = False) -> dict[str, str]:
        return {model.name: model.state for model in ask(served, "RepositoryIndex", ready=ready).models}

    before = index()
    assert before["tensors"] == "READY"
    for _ in range(2):  # what is there stays
        told = ask(served, "RepositoryModelLoad", **{field: "guest"})
        assert (told.model_name, told.isLoaded) == ("guest", True)
        assert ask(served, "ModelReady", name="guest").ready
    assert index(ready=True) == before | {"guest": "READY"}
    told = ask(served, "RepositoryModelUnload", **{field: "guest"})
    assert (told.model_name, told.isUnloaded) == ("guest", True)
    assert index() == before
    with refused(Code.NOT_FOUND, "Model not found: guest"):
        ask(served, "RepositoryModelUnload", **{field: "guest"})
    with refused(Code.NOT_FOUND):
        ask(served, "RepositoryModelLoad", **{field: "nowhere"})


@check("grpc", 35)
@fixed("grpc standard service")
def test_the_repository_is_closed_where_models_may_not_come_and_go(tmp_path: Path) -> None:
    with ExitStack() as stack:
        served = start_grpc(stack, tmp_path, ON, without=("--enable-model-api",), oracle=False)
        for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
            with refused(Code.PERMISSION_DENIED, "Model API disabled"):
                ask(served, method, model_name="x")


def leave(served: GrpcServer) -> None:
    request = message("ModelInferRequest", model_name="oracle")
    stub(served).ModelInfer.future(request, timeout=PATIENCE).cancel()


def send_nonsense(served: GrpcServer) -> None:
    for garbage in (b"\xff\xff\xff", b"\x0a\x07tensors\x2a\xff", b"\x0a\x07tensors\x3a\x7f"):
        call = served.channel().unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with refused(Code.INVALID_ARGUMENT):
            call(garbage, timeout=PATIENCE)


def have_no_inputs(served: GrpcServer) -> None:
    assert not infer(served).outputs


def ask_a_stranger(served: GrpcServer) -> None:
    """A handler that knows nothing of Open Inference."""
    pid = served.pid()
    with refused(Code.INTERNAL):
        infer(served, tensor("x", "INT8", [1], int_contents=[1]), model_name="oracle")
    assert served.pid() == pid


@check("grpc", 38)
@fixed("grpc standard service")
@pytest.mark.parametrize("deed", [leave, send_nonsense, have_no_inputs, ask_a_stranger])
def test_no_client_hurts_a_worker_of_tensors(served: GrpcServer, deed: Any) -> None:
    pid = pid_of(served)
    deed(served)
    assert pid_of(served) == pid
    assert served.server.waiting("tensors") == 0
