"""Open Inference over gRPC: requests travel as they came, and each service speaks in its own words."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from rpc_doubles import MemoryContext, Port

from harness.stubs import message, module
from modelserver.engine.job import Chunks, Job, Membership
from modelserver.engine.requests import VersionStatus, WorkerStatus
from modelserver.errors import (
    BadRequest,
    Cause,
    Certificate,
    Conflict,
    DownloadFailed,
    ModelNotFound,
    RequestTimeout,
    ServerError,
    ServiceUnavailable,
    WorkerError,
)
from modelserver.settings.open_inference import Declaration, DeclaredTensor
from modelserver.settings.version import version
from modelserver.wire.frames import INFER, PROTOBUF, TORCHSERVE_PROTOBUF, Reply

Code = grpc.StatusCode
STANDARD, TORCHSERVE = "/inference.GRPCInferenceService", "/org.pytorch.serve.grpc.openinference.GRPCInferenceService"
BOTH = pytest.mark.parametrize("service", [STANDARD, TORCHSERVE])
JAVA = "org.pytorch.serve."


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def open_port(**settings: Any) -> Port:
    return Port(ts_open_inference_protocol=True, **settings)


def sent(name: str, /, **fields: Any) -> bytes:
    data: bytes = message(name, **fields).SerializeToString()
    return data


def said(name: str, context: MemoryContext) -> Any:
    """The only response."""
    (data,) = context.written
    return getattr(module("grpc_predict_v2_pb2"), name).FromString(data)


def worker(*, ready: bool = True, detail: str = "") -> WorkerStatus:
    certificate = Certificate(Cause.INITIALIZE, detail) if detail else None
    return WorkerStatus("9000", datetime.now(UTC), ready, 0, 1, None, certificate)


def status(
    name: str, number: str, *workers: WorkerStatus, minimum: int = 1, declared: Declaration | None = None
) -> VersionStatus:
    return VersionStatus(
        model_name=name,
        model_version=number,
        model_url="",
        runtime="python",
        min_workers=minimum,
        max_workers=minimum,
        options=cast(Any, SimpleNamespace(open_inference=declared or Declaration())),
        loaded_at_startup=False,
        workers=workers,
    )


@BOTH
def test_switched_off_there_is_nothing(service: str) -> None:
    async def scene() -> None:
        context = await Port().call(f"{service}/ServerLive", b"")
        assert context.ended == (Code.UNIMPLEMENTED, f"Method not found: {service[1:]}/ServerLive")

    run(scene())


@BOTH
def test_the_server(service: str) -> None:
    async def scene() -> None:
        port = open_port()
        port.engine.is_healthy = False
        assert said("ServerLiveResponse", await port.call(f"{service}/ServerLive", b"")).live
        assert said("ServerReadyResponse", await port.call(f"{service}/ServerReady", b"")).ready
        port.engine.not_ready = ["m 1.0 (workers are loading)"]
        assert not said("ServerReadyResponse", await port.call(f"{service}/ServerReady", b"")).ready
        told = said("ServerMetadataResponse", await port.call(f"{service}/ServerMetadata", b""))
        assert (told.name, told.version, list(told.extensions)) == ("Torchserve", version(), ["kserve", "kubeflow"])

    run(scene())


@BOTH
@pytest.mark.parametrize(
    ("workers", "minimum", "ready"),
    [
        ([], 0, False),
        ([worker()], 0, True),
        ([worker()], 1, True),
        ([worker(ready=False)], 1, False),
        ([worker(), worker(ready=False)], 2, False),
    ],
)
def test_ready_models(service: str, workers: list[WorkerStatus], minimum: int, ready: bool) -> None:
    async def scene() -> None:
        port = open_port()
        port.engine.models["m"] = [status("m", "1.0"), status("m", "2.0", *workers, minimum=minimum)]
        context = await port.call(f"{service}/ModelReady", sent("ModelReadyRequest", name="m", version="2.0"))
        assert said("ModelReadyResponse", context).ready is ready

    run(scene())


@BOTH
@pytest.mark.parametrize(("method", "parameter"), [("ModelReady", "name"), ("ModelMetadata", "model_name")])
def test_models_nobody_can_tell_about(service: str, method: str, parameter: str) -> None:
    """A name that is missing is an internal error to TorchServe's service; in all else they agree but for a line."""

    async def scene() -> None:
        port = open_port()
        port.engine.models["m"] = [status("m", "1.0")]
        tags = service == TORCHSERVE
        for fields, text, code, tag in (
            ({}, f"Parameter {parameter} is required.", Code.INVALID_ARGUMENT, "BadRequestException.()"),
            ({"name": "x"}, "Model not found: x", Code.NOT_FOUND, f"{JAVA}archive.model.ModelNotFoundException"),
            (
                {"name": "m", "version": "9"},
                "Model version: 9 does not exist for model: m",
                Code.NOT_FOUND,
                f"{JAVA}archive.model.ModelVersionNotFoundException",
            ),
        ):
            wanted = Code.INTERNAL if tags and not fields else code
            context = await port.call(f"{service}/{method}", sent(f"{method}Request", **fields))
            assert context.ended == (wanted, f"{text}\n{tag}" if tags else text)

    run(scene())


@BOTH
def test_metadata_of_models(service: str) -> None:
    async def scene() -> None:
        port = open_port()
        port.engine.models["m"] = [status("m", "1.0"), status("m", "2.0")]
        told = said(
            "ModelMetadataResponse",
            await port.call(f"{service}/ModelMetadata", sent("ModelMetadataRequest", name="m", version="2.0")),
        )
        assert (told.name, list(told.versions), told.platform) == ("m", ["1.0", "2.0"], "")
        assert not told.inputs and not told.outputs

    run(scene())


def test_declared_tensors() -> None:
    async def scene() -> None:
        port = open_port()
        image, size, label = (
            DeclaredTensor(name=name, datatype=datatype, shape=shape)
            for name, datatype, shape in (
                ("image", "FP32", (-1, 3, 224, 224)),
                ("size", "INT64", (2,)),
                ("label", "BYTES", (-1,)),
            )
        )
        declared = Declaration(inputs=(image, size), outputs=(label,))
        port.engine.models["m"] = [status("m", "1.0", declared=declared)]
        context = await port.call(f"{STANDARD}/ModelMetadata", sent("ModelMetadataRequest", name="m"))
        told = said("ModelMetadataResponse", context)
        assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in told.inputs] == [
            ("image", "FP32", [-1, 3, 224, 224]),
            ("size", "INT64", [2]),
        ]
        assert [tensor.name for tensor in told.outputs] == ["label"]

    run(scene())


def infer_request(model: str = "m", id: str = "42", number: str = "2.0") -> bytes:
    inputs = [{"name": "in0", "datatype": "INT8", "shape": [3]}]
    return sent(
        "ModelInferRequest",
        model_name=model,
        model_version=number,
        id=id,
        inputs=inputs,
        raw_input_contents=[b"\x01\x02\x03"],
    )


@pytest.mark.parametrize(("service", "mime"), [(STANDARD, PROTOBUF), (TORCHSERVE, TORCHSERVE_PROTOBUF)])
def test_requests_and_responses_travel_as_they_are(service: str, mime: str) -> None:
    async def scene() -> None:
        port = open_port()
        request = infer_request() + b"\x7a\x01x"  # a field that nobody knows yet
        port.engine.answer = lambda job: Reply(0, b"whatever the worker has written")
        context = await port.call(f"{service}/ModelInfer", request, left=3.0)
        (job,) = port.engine.jobs
        assert [(part.name, part.mime, part.value) for part in job.request.parts] == [("body", mime, request)]
        assert (job.kind, job.model, job.label, job.size, job.timeout) == (INFER, "m", "2.0", len(request), 3.0)
        assert job.request.headers == [] and job.request.extra == {} and port.engine.versions == ["2.0"]
        assert context.written == [b"whatever the worker has written"] and context.ended is None
        ((*_, model, label, request_id, _, _, ok),) = port.telemetry.records
        assert (model, label, request_id, ok) == ("m", "2.0", job.request.id, True)

    run(scene())


TAG = f"{JAVA}http.InternalServerException"
NOT_THERE = f"{JAVA}archive.model.ModelNotFoundException"
ERRORS: list[tuple[ServerError, grpc.StatusCode, grpc.StatusCode, str]] = [
    # error, code of TorchServe's service, code of the standard one, second line of the former
    (WorkerError(503, "Prediction failed"), Code.UNAVAILABLE, Code.INTERNAL, TAG),
    (WorkerError(503, "number of batch response mismatched"), Code.UNAVAILABLE, Code.INTERNAL, TAG),
    (WorkerError(503, "Invalid model predict output"), Code.UNAVAILABLE, Code.INTERNAL, TAG),
    (WorkerError(503, "Unsupported model output data type."), Code.UNAVAILABLE, Code.INTERNAL, TAG),
    (WorkerError(507, "Out of resources"), Code.INTERNAL, Code.RESOURCE_EXHAUSTED, TAG),
    (WorkerError(503, "told so"), Code.UNAVAILABLE, Code.UNAVAILABLE, TAG),
    (WorkerError(404, "told so"), Code.NOT_FOUND, Code.NOT_FOUND, TAG),
    (WorkerError(500, "Worker died."), Code.INTERNAL, Code.INTERNAL, TAG),
    (WorkerError(413, "Worker died."), Code.RESOURCE_EXHAUSTED, Code.RESOURCE_EXHAUSTED, TAG),
    (
        RequestTimeout("late"),
        Code.DEADLINE_EXCEEDED,
        Code.DEADLINE_EXCEEDED,
        f"{JAVA}http.RequestTimeoutException",
    ),
    (ServiceUnavailable("full"), Code.INTERNAL, Code.UNAVAILABLE, "InternalServerException.()"),
    (ModelNotFound("Model not found: m"), Code.INTERNAL, Code.NOT_FOUND, NOT_THERE),
]


@pytest.mark.parametrize(("error", "ours", "standard", "tag"), ERRORS, ids=lambda value: str(value))
def test_errors(error: ServerError, ours: grpc.StatusCode, standard: grpc.StatusCode, tag: str) -> None:
    async def scene() -> None:
        port = open_port()
        port.engine.answer = lambda job: error
        context = await port.call(f"{TORCHSERVE}/ModelInfer", infer_request())
        assert context.ended == (ours, f"{error.message}\n{tag}")
        context = await port.call(f"{STANDARD}/ModelInfer", infer_request())
        assert context.ended == (standard, error.message)

    run(scene())


def test_requests_that_name_no_model() -> None:
    async def scene() -> None:
        port = open_port()
        text = "Parameter model_name is required."
        context = await port.call(f"{TORCHSERVE}/ModelInfer", infer_request(""))
        assert context.ended == (Code.INTERNAL, f"{text}\nBadRequestException.()")
        context = await port.call(f"{STANDARD}/ModelInfer", infer_request(""))
        assert context.ended == (Code.INVALID_ARGUMENT, text)

    run(scene())


@BOTH
@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x7f", b"\x0a\x01\xff"])
def test_messages_that_are_none(service: str, garbage: bytes) -> None:
    async def scene() -> None:
        port = open_port()
        for method in ("ModelInfer", "ModelReady", "ModelMetadata"):
            context = await port.call(f"{service}/{method}", garbage)
            assert context.ended is not None and context.ended[0] is Code.INVALID_ARGUMENT
            assert context.ended[1].startswith("The request message is malformed.")
        assert not port.engine.jobs

    run(scene())


def test_what_a_worker_could_not_read_is_the_fault_of_that_request() -> None:
    async def scene() -> None:
        port = open_port()
        port.engine.answer = lambda job: BadRequest("input é has 2 elements")
        context = await port.call(f"{STANDARD}/ModelInfer", infer_request())
        assert context.ended == (Code.INVALID_ARGUMENT, "input é has 2 elements") and not context.written
        context = await port.call(f"{TORCHSERVE}/ModelInfer", infer_request())
        assert context.ended == (Code.INVALID_ARGUMENT, f"input é has 2 elements\n{JAVA}http.BadRequestException")

    run(scene())


def in_pieces(job: Job) -> Reply:
    """Two responses."""
    job.chunks = Chunks()
    job.chunks.put(sent("ModelInferResponse", id=job.request.id, outputs=[{"name": "b"}]))
    job.chunks.end()
    return Reply(0, sent("ModelInferResponse", model_name="m", outputs=[{"name": "a"}]))


def test_the_pieces_of_an_answer_are_merged() -> None:
    async def scene() -> None:
        port = open_port()
        port.engine.answer = in_pieces
        told = said("ModelInferResponse", await port.call(f"{STANDARD}/ModelInfer", infer_request()))
        assert (told.model_name, [output.name for output in told.outputs]) == ("m", ["a", "b"])

    run(scene())


def streamed(context: MemoryContext) -> list[Any]:
    return [module("grpc_predict_v2_pb2").ModelStreamInferResponse.FromString(data) for data in context.written]


def test_a_stream_goes_on_whatever_its_requests_are() -> None:
    """Every request is answered in its place, those that are none included."""

    async def scene() -> None:
        port = open_port()

        def answer(job: Job) -> Reply | ServerError:
            number = job.request.parts[0].value
            if b"bad" in number:
                return BadRequest("cannot read it")
            return WorkerError(503, "Prediction failed") if b"fail" in number else in_pieces(job)

        port.engine.answer = answer
        context = await port.call(
            f"{STANDARD}/ModelStreamInfer",
            infer_request(id="bad"),
            b"\xff\xff\xff",
            infer_request("nope", id="lost"),
            infer_request("", id="nameless"),
            infer_request(id="good"),
            infer_request(id="fail"),
        )
        assert context.ended is None
        answers = streamed(context)
        assert [(answer.error_message, answer.infer_response.id) for answer in answers[:4]] == [
            ("cannot read it", "bad"),
            ("The request message is malformed.", ""),
            ("Model not found: nope", "lost"),
            ("Parameter model_name is required.", "nameless"),
        ]
        first, second, last = answers[4:]
        assert [output.name for part in (first, second) for output in part.infer_response.outputs] == ["a", "b"]
        assert (last.error_message, last.infer_response.id) == ("Prediction failed", "fail")
        assert not first.error_message and not second.error_message
        counted = [facts[8] for facts in port.telemetry.records if facts[1] == ""]
        assert counted == ["m"] * 3, "jobs that reached the model are requests"

    run(scene())


def test_torchserves_service_has_no_extensions() -> None:
    async def scene() -> None:
        for method in ("ModelStreamInfer", "RepositoryIndex", "RepositoryModelLoad", "ModelConfig", "ModelStatistics"):
            context = await open_port().call(f"{TORCHSERVE}/{method}", b"")
            assert context.ended is not None and context.ended[0] is Code.UNIMPLEMENTED

    run(scene())


def counted(number: int) -> dict[str, Any]:
    times = {name: {"count": number, "ns": 2**40} for name in ("success", "queue", "compute_infer", "cache_hit")}
    batches = [{"batch_size": 1, "compute_infer": {"count": number, "ns": 9}}]
    members = {"last_inference": 2**41, "inference_count": number, "execution_count": number}
    return {**members, "inference_stats": times, "batch_stats": batches}


def statistics_port() -> Port:
    port = open_port()
    port.engine.models = {"m": [status("m", "1.0"), status("m", "2.0")], "n": [status("n", "1.0")]}
    registered = ("m", "1.0"), ("m", "2.0"), ("n", "1.0")
    port.telemetry.counted = {each: counted(7) for each in registered}
    return port


@pytest.mark.parametrize(
    ("asked", "versions"),
    [
        ({}, [("m", "1.0"), ("m", "2.0"), ("n", "1.0")]),
        ({"name": "m"}, [("m", "1.0"), ("m", "2.0")]),
        ({"name": "m", "version": "2.0"}, [("m", "2.0")]),
    ],
)
def test_statistics(asked: dict[str, str], versions: list[tuple[str, str]]) -> None:
    async def scene() -> None:
        request = sent("ModelStatisticsRequest", **asked)
        told = said("ModelStatisticsResponse", await statistics_port().call(f"{STANDARD}/ModelStatistics", request))
        assert [(each.name, each.version) for each in told.model_stats] == versions
        first = told.model_stats[0]
        assert (first.last_inference, first.inference_count, first.execution_count) == (2**41, 7, 7)
        assert (first.inference_stats.success.ns, first.inference_stats.cache_hit.count) == (2**40, 7)
        assert [(each.batch_size, each.compute_infer.ns) for each in first.batch_stats] == [(1, 9)]

    run(scene())


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        ({"name": "nope"}, Code.NOT_FOUND, "Model not found: nope"),
        ({"name": "m", "version": "9"}, Code.NOT_FOUND, "Model version: 9 does not exist for model: m"),
        ({"version": "1.0"}, Code.INVALID_ARGUMENT, "Parameter name is required."),
    ],
)
def test_statistics_of_what_is_not_there(asked: dict[str, str], code: grpc.StatusCode, text: str) -> None:
    async def scene() -> None:
        request = sent("ModelStatisticsRequest", **asked)
        assert (await statistics_port().call(f"{STANDARD}/ModelStatistics", request)).ended == (code, text)

    run(scene())


def test_the_index_of_the_repository() -> None:
    async def scene() -> None:
        port = open_port()
        port.engine.models["m"] = [
            status("m", "1.0", worker()),
            status("m", "2.0", worker(ready=False, detail="ValueError: no weights")),
            status("m", "3.0", minimum=0),
            status("m", "4.0", worker(ready=False)),
        ]

        async def index(**fields: Any) -> list[tuple[str, ...]]:
            context = await port.call(f"{STANDARD}/RepositoryIndex", sent("RepositoryIndexRequest", **fields))
            models = said("RepositoryIndexResponse", context).models
            return [(model.name, model.version, model.state, model.reason) for model in models]

        assert await index() == [
            ("m", "1.0", "READY", ""),
            ("m", "2.0", "UNAVAILABLE", "ValueError: no weights"),
            ("m", "3.0", "UNAVAILABLE", "no workers"),
            ("m", "4.0", "UNAVAILABLE", "workers are loading"),
        ]
        assert await index(ready=True) == [("m", "1.0", "READY", "")]

    run(scene())


@pytest.mark.parametrize("fields", [{"repository_name": "new"}, {"repository_name": "r", "model_name": "new"}])
def test_models_are_loaded_from_the_model_store(fields: dict[str, str]) -> None:
    """An archive, or else a directory; the name stands where clients of KServe have it, or those of Triton."""

    async def scene() -> None:
        port = open_port(enable_model_api=True, default_workers_per_model=3)
        port.engine.outcomes = [ModelNotFound("Model not found at: new.mar"), None]
        request = sent("RepositoryModelLoadRequest", **fields)
        told = said("RepositoryModelLoadResponse", await port.call(f"{STANDARD}/RepositoryModelLoad", request))
        assert (told.model_name, told.isLoaded) == ("new", True)
        first, _, second, _ = port.engine.calls
        assert (first.url, second.url) == ("new.mar", "new")
        assert {(call.model_name, call.initial_workers, call.synchronous) for call in (first, second)} == {
            ("new", 3, True)
        }

    run(scene())


@pytest.mark.parametrize("faster", [True, False])
def test_models_that_are_there_stay(faster: bool) -> None:
    async def scene() -> None:
        port = open_port(enable_model_api=True)
        if faster:
            port.engine.outcomes = [Conflict("Model version 1.0 is already registered for model m")]
        else:
            port.engine.models["m"] = [status("m", "1.0")]
        request = sent("RepositoryModelLoadRequest", model_name="m")
        assert said("RepositoryModelLoadResponse", await port.call(f"{STANDARD}/RepositoryModelLoad", request)).isLoaded
        assert faster or not port.engine.calls

    run(scene())


def test_refused_loads() -> None:
    async def scene() -> None:
        port = open_port(enable_model_api=True)
        for name, outcome, code in (
            ("", None, Code.INVALID_ARGUMENT),
            ("http://elsewhere/x", BadRequest("Model name contains a slash"), Code.INVALID_ARGUMENT),
            ("x", DownloadFailed("no"), Code.INVALID_ARGUMENT),
            ("x", WorkerError(500, "Failed to start workers for model x version: 1.0"), Code.INTERNAL),
        ):
            port.engine.outcomes = [outcome]
            context = await port.call(
                f"{STANDARD}/RepositoryModelLoad", sent("RepositoryModelLoadRequest", model_name=name)
            )
            assert context.ended is not None and context.ended[0] is code and "\n" not in context.ended[1]
        port.engine.outcomes = [ModelNotFound("Model not found at: x.mar"), ModelNotFound("Model not found at: x")]
        context = await port.call(f"{STANDARD}/RepositoryModelLoad", sent("RepositoryModelLoadRequest", model_name="x"))
        assert context.ended == (Code.NOT_FOUND, "Model not found at: x")

    run(scene())


def test_all_versions_are_unloaded_the_default_one_last() -> None:
    async def scene() -> None:
        port = open_port(enable_model_api=True)
        port.engine.models["m"] = [status("m", "1.0"), status("m", "2.0"), status("m", "3.0")]
        request = sent("RepositoryModelUnloadRequest", repository_name="m")
        told = said("RepositoryModelUnloadResponse", await port.call(f"{STANDARD}/RepositoryModelUnload", request))
        assert (told.model_name, told.isUnloaded) == ("m", True)
        assert port.engine.calls == [("m", "2.0"), ("m", "3.0"), ("m", "1.0")]
        context = await port.call(
            f"{STANDARD}/RepositoryModelUnload", sent("RepositoryModelUnloadRequest", model_name="x")
        )
        assert context.ended == (Code.NOT_FOUND, "Model not found: x")

    run(scene())


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_models_come_and_go_only_where_that_is_allowed(method: str) -> None:
    async def scene() -> None:
        port = open_port()
        context = await port.call(f"{STANDARD}/{method}", sent(f"{method}Request", model_name="m"))
        assert context.ended == (Code.PERMISSION_DENIED, "Model API disabled")
        assert not port.engine.calls

    run(scene())


@pytest.mark.parametrize(
    ("parameters", "sequence"),
    [
        ({}, None),
        ({"other": {"int64_param": 3}, "sequence_start": {"bool_param": True}}, None),
        ({"sequence_id": {"int64_param": 3}}, Membership("3")),
        ({"sequence_id": {"int64_param": -3}, "sequence_end": {"bool_param": True}}, Membership("-3", end=True)),
        ({"sequence_id": {"uint64_param": 2**63}}, Membership(str(2**63))),
        ({"sequence_id": {"string_param": "s"}, "sequence_start": {"bool_param": True}}, Membership("s", start=True)),
        ({"sequence_id": {"int64_param": 0}, "sequence_start": {"bool_param": True}}, Membership("", start=True)),
        ({"sequence_id": {"double_param": 1.5}}, Membership("")),
    ],
)
@BOTH
def test_parameters_say_the_sequence(service: str, parameters: dict[str, Any], sequence: Membership | None) -> None:
    async def scene() -> None:
        port = open_port()
        await port.call(f"{service}/ModelInfer", sent("ModelInferRequest", model_name="m", parameters=parameters))
        assert port.engine.jobs[0].sequence == sequence

    run(scene())
