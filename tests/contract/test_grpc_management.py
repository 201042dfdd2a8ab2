"""Management over gRPC: texts, statuses, pages, and what is not gated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from contract.grpc_server import CLASS, GrpcServer, refused, start_grpc
from harness.archives import pack
from harness.server import eventually

check, fixed = pytest.mark.check, pytest.mark.fixed
Code = grpc.StatusCode
ECHO = "def handle(data, context):\n    return data and ['ok'] * len(data)\n"
ECHO_1 = {"url": "echo-1.0.mar", "model_name": "echo"}
BROKEN = "raise ValueError('no')\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    with ExitStack() as stack:
        served = start_grpc(stack, tmp_path_factory.mktemp("server"), {"default_workers_per_model": 1})
        for name, version in (("echo", "1.0"), ("echo", "2.0"), ("other", "1.0")):
            pack(served.server.store, name, ECHO, version=version, archive=f"{name}-{version}")
        pack(served.server.store, "broken", BROKEN)
        yield served


@pytest.fixture
def echo(server: GrpcServer) -> Iterator[str]:
    """A model without workers."""
    answer = server.server.register("echo-1.0.mar", workers=0, model_name="echo")
    assert answer.status_code == 200, answer.text
    yield "echo"
    for version in ("2.0", "1.0"):
        server.server.request("DELETE", f"/models/echo/{version}", "Management")


def register(server: GrpcServer, **fields: Any) -> str:
    return server.manage("RegisterModel", "RegisterModelRequest", **fields)


def scale(server: GrpcServer, **fields: Any) -> str:
    return server.manage("ScaleWorker", "ScaleWorkerRequest", **fields)


def unregister(server: GrpcServer, **fields: Any) -> str:
    return server.manage("UnregisterModel", "UnregisterModelRequest", **fields)


def describe(server: GrpcServer, **fields: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(server.manage("DescribeModel", "DescribeModelRequest", **fields))
    return told


@check("grpc", 22)
def test_the_model_api_can_be_off(tmp_path_factory: pytest.TempPathFactory) -> None:
    with ExitStack() as stack:
        closed = start_grpc(stack, tmp_path_factory.mktemp("closed"), without=("--enable-model-api",), oracle=False)
        text = f"Model API disabled\n{CLASS}archive.model.ModelException"
        with refused(Code.PERMISSION_DENIED, text):
            register(closed)
        with refused(Code.PERMISSION_DENIED, text):
            unregister(closed)
        with refused(Code.NOT_FOUND, f"Model not found: nope\n{CLASS}archive.model.ModelNotFoundException"):
            scale(closed, model_name="nope")


@check("grpc", 23)
def test_registrations(server: GrpcServer) -> None:
    text = 'Model "echo" Version: 1.0 registered with {} initial workers'
    assert register(server, **ECHO_1, synchronous=True) == text.format(1)
    unregister(server, model_name="echo")
    assert register(server, **ECHO_1, initial_workers=2, synchronous=True) == text.format(2)
    unregister(server, model_name="echo")
    assert register(server, **ECHO_1) == "Processing worker updates..."
    eventually(lambda: server.server.ready_workers("echo"))
    assert unregister(server, model_name="echo") == 'Model "echo" unregistered'


@check("grpc", 23)
def test_fields_of_registrations(server: GrpcServer) -> None:
    fields = {"batch_size": 4, "max_batch_delay": 7, "response_timeout": 11, "startup_timeout": 12}
    register(server, url="echo-1.0.mar", model_name="mine", handler="handler:handle", synchronous=True, **fields)
    (told,) = describe(server, model_name="mine")
    keys = ("batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout")
    assert [told[key] for key in keys] == [4, 7, 11, 12]
    unregister(server, model_name="mine")


@check("grpc", 23)
@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({}, Code.INVALID_ARGUMENT, f"Parameter url is required.\n{CLASS}http.BadRequestException"),
        (
            {"url": "echo-1.0.mar", "runtime": "java"},
            Code.INVALID_ARGUMENT,
            f"Invalid RuntimeType value: java\n{CLASS}http.BadRequestException",
        ),
        (
            {"url": "gone.mar"},
            Code.NOT_FOUND,
            f"Model not found at: gone.mar\n{CLASS}archive.model.ModelNotFoundException",
        ),
        (
            {"url": "../echo.mar"},
            Code.NOT_FOUND,
            f"Relative path is not allowed in url: ../echo.mar\n{CLASS}archive.model.ModelNotFoundException",
        ),
        (
            {"url": "http://127.0.0.1:1/x.mar"},
            Code.INVALID_ARGUMENT,
            f"Failed to download archive from: http://127.0.0.1:1/x.mar\n{CLASS}archive.DownloadArchiveException",
        ),
        (
            {"url": "broken.mar", "synchronous": True},
            Code.INTERNAL,
            f"Failed to start workers for model broken version: 1.0\n{CLASS}http.InternalServerException",
        ),
    ],
)
def test_refused_registrations(server: GrpcServer, fields: dict[str, Any], code: Any, text: str) -> None:
    with refused(code, text):
        register(server, **fields)
    assert server.server.status_of("broken") == 404


@check("grpc", 23)
def test_urls_that_are_not_allowed(tmp_path_factory: pytest.TempPathFactory) -> None:
    with ExitStack() as stack:
        config = {"allowed_urls": "https://models.example/.*"}
        strict = start_grpc(stack, tmp_path_factory.mktemp("strict"), config, oracle=False)
        url = "http://127.0.0.1:1/x.mar"
        text = f"Given URL {url} does not match any allowed URL(s)\n{CLASS}archive.model.ModelNotFoundException"
        with refused(Code.NOT_FOUND, text):
            register(strict, url=url)


@check("grpc", 23)
@fixed("grpc mute refusals")
def test_a_version_is_registered_once(server: GrpcServer, echo: str) -> None:
    text = f"Model version 1.0 is already registered for model echo\n{CLASS}http.ConflictStatusException"
    with refused(Code.ABORTED, text):
        register(server, **ECHO_1)


@check("grpc", 24)
def test_scaling(server: GrpcServer, echo: str) -> None:
    def counts() -> list[int]:
        (told,) = describe(server, model_name=echo)
        return [told["minWorkers"], told["maxWorkers"], len(told["workers"])]

    assert scale(server, model_name=echo, min_worker=2, synchronous=True) == "Workers scaled to 2 for model: echo"
    assert counts() == [2, 2, 2]
    text = scale(server, model_name=echo, model_version="1.0", min_worker=0, synchronous=True)
    assert text == "Workers scaled to 1 for model: echo, version: 1.0"
    assert counts() == [1, 1, 1]
    assert scale(server, model_name=echo, max_worker=3) == "Processing worker updates..."
    assert counts() == [1, 3, 1]
    text = f"max_worker cannot be less than min_worker.\n{CLASS}http.BadRequestException"
    with refused(Code.INVALID_ARGUMENT, text):
        scale(server, model_name=echo, min_worker=3, max_worker=2)


@check("grpc", 24)
@fixed("grpc mute refusals")
def test_scaling_nothing(server: GrpcServer) -> None:
    with refused(Code.INVALID_ARGUMENT, f"Parameter model_name is required.\n{CLASS}http.BadRequestException"):
        scale(server)


@check("grpc", 25)
@fixed("grpc mute refusals")
def test_default_versions(server: GrpcServer, echo: str) -> None:
    register(server, url="echo-2.0.mar", model_name="echo")
    text = server.manage("SetDefault", "SetDefaultRequest", model_name=echo, model_version="2.0")
    assert text == 'Default version successfully updated for model "echo" to "2.0"'
    text = f"Cannot remove default version for model echo\n{CLASS}http.InvalidModelVersionException"
    with refused(Code.PERMISSION_DENIED, text):
        unregister(server, model_name=echo, model_version="2.0")
    for version in ("9", ""):
        text = (
            f"Model version {version} does not exist for model echo\n{CLASS}archive.model.ModelVersionNotFoundException"
        )
        with refused(Code.NOT_FOUND, text):
            server.manage("SetDefault", "SetDefaultRequest", model_name=echo, model_version=version)
    with refused(Code.NOT_FOUND, f"Model not found: \n{CLASS}archive.model.ModelNotFoundException"):
        server.manage("SetDefault", "SetDefaultRequest", model_version="1.0")
    assert unregister(server, model_name=echo, model_version="1.0") == 'Model "echo" unregistered'


@check("grpc", 25)
def test_unregistering_what_is_not_there(server: GrpcServer, echo: str) -> None:
    with refused(Code.INVALID_ARGUMENT, f"Parameter url is required.\n{CLASS}http.BadRequestException"):
        unregister(server)
    with refused(Code.NOT_FOUND, f"Model not found: nope\n{CLASS}archive.model.ModelNotFoundException"):
        unregister(server, model_name="nope")
    text = f"Model version: 9 does not exist for model: echo\n{CLASS}archive.model.ModelVersionNotFoundException"
    with refused(Code.NOT_FOUND, text):
        unregister(server, model_name=echo, model_version="9")


@check("grpc", 26)
@fixed("grpc pages")
def test_pages(server: GrpcServer, echo: str) -> None:
    def page(**fields: int) -> str:
        return server.manage("ListModels", "ListModelsRequest", **fields)

    echo_entry, oracle_entry = (
        {"modelName": "echo", "modelUrl": "echo-1.0.mar"},
        {"modelName": "oracle", "modelUrl": "oracle.mar"},
    )
    assert json.loads(page()) == {"models": [echo_entry, oracle_entry]}
    assert json.loads(page(limit=-1)) == json.loads(page(limit=1000)) == json.loads(page(next_page_token=-4))
    first = page(limit=1)
    assert first.startswith('{\n  "nextPageToken": "1",\n  "models": [\n') and json.loads(first)["models"] == [
        echo_entry
    ]
    assert json.loads(page(limit=1, next_page_token=1)) == {"nextPageToken": "2", "models": [oracle_entry]}
    assert page(next_page_token=7) == '{\n  "models": []\n}'


@check("grpc", 27)
def test_descriptions(server: GrpcServer, echo: str) -> None:
    (told,) = describe(server, model_name="oracle")
    keys = (
        "modelName modelVersion modelUrl runtime minWorkers maxWorkers batchSize maxBatchDelay responseTimeout "
        "startupTimeout maxRetryTimeoutInSec clientTimeoutInMills parallelType parallelLevel deviceType "
        "continuousBatching useJobTicket useVenv stateful sequenceMaxIdleMSec sequenceTimeoutMSec maxNumSequence "
        "maxSequenceJobQueueSize loadedAtStartup workers jobQueueStatus"
    )
    assert list(told) == keys.split()
    assert list(told["workers"][0])[:7] == ["id", "startTime", "status", "memoryUsage", "pid", "gpu", "gpuUsage"]
    assert told == server.server.describe("oracle")
    (told,) = describe(server, model_name="oracle", customized=True)
    assert told["customizedMetadata"] == {"described": True}
    register(server, url="echo-2.0.mar", model_name="echo")
    versions = describe(server, model_name=echo, model_version="all", customized=True)
    assert sorted(version["modelVersion"] for version in versions) == ["1.0", "2.0"]
    text = f"Model version: 9 does not exist for model: echo\n{CLASS}archive.model.ModelVersionNotFoundException"
    with refused(Code.NOT_FOUND, text):
        describe(server, model_name=echo, model_version="9")
    with refused(Code.NOT_FOUND, f"Model not found: \n{CLASS}archive.model.ModelNotFoundException"):
        describe(server)


@check("grpc", 27)
@fixed("grpc customized describe")
def test_customized_descriptions_that_nobody_can_give(server: GrpcServer, echo: str) -> None:
    text = (
        'Model "echo" has no worker to serve describe request. Please use scale workers API to add workers.\n'
        f"{CLASS}http.InternalServerException"
    )
    with refused(Code.INTERNAL, text):
        describe(server, model_name=echo, customized=True)
    with refused(Code.NOT_FOUND, f"Model not found: nope\n{CLASS}archive.model.ModelNotFoundException"):
        describe(server, model_name="nope", customized=True)
