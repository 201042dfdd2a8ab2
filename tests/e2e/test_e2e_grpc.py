"""gRPC with real processes: clients that leave or crowd, workers that die, health, reflection, bounded memory."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from harness.archives import NOOP, pack
from harness.server import DEADLINE, ServerProcess, eventually
from harness.stubs import message, module

ROOT = Path(__file__).parents[2]

HELPFUL = """
import os
import time

from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    if data is None:
        return None
    return [obey(bytes(row.get("do", b"")).decode(), context) for row in data]


def obey(do, context):
    if do == "exit":
        os._exit(1)
    if do == "slow":
        time.sleep(0.02)
    if do == "flood":
        for _ in range(200):
            send_intermediate_predict_response(["x" * 1_000_000], context.request_ids, "", 200, context)
            if context.cancelled[0]:
                return "cancelled"
    return str(os.getpid())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One worker of `helpful`."""
    switches = ("enable_grpc_health", "enable_grpc_reflection", "ts_open_inference_protocol")
    config = dict.fromkeys(switches, "true")
    server = ServerProcess(tmp_path_factory.mktemp("server"), config=config)
    pack(server.store, "helpful", HELPFUL)
    pack(server.store, "noop", NOOP)
    with server:
        assert server.register("helpful.mar").status_code == 200
        yield server


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all tests: grpcio's clients do not like several in one process."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_target(), [("grpc.max_receive_message_length", -1)]) as channel:
        yield channel


def stub(channel: Any) -> Any:
    return module("inference_pb2_grpc").InferenceAPIsServiceStub(channel)


def request(do: str = "", sequence: str | None = None) -> Any:
    return message("PredictionsRequest", model_name="helpful", input={"do": do.encode()}, sequence_id=sequence)


def pid_of(channel: grpc.Channel) -> bytes:
    pid: bytes = stub(channel).Predictions(request(), timeout=DEADLINE).prediction
    return pid


def test_a_thousand_aborted_calls_leave_nothing(
    server: ServerProcess, channel: grpc.Channel, runner: asyncio.Runner
) -> None:
    pid = pid_of(channel)
    runner.run(_abort(server.grpc_target(), 1000))
    assert pid_of(channel) == pid
    assert server.describe("helpful")["jobQueueStatus"] == {"remainingCapacity": 100, "pendingRequests": 0}
    eventually(lambda: server.log("access_log.log").count('Predictions HTTP/2.0" 1 ') > 100)


async def _abort(target: str, count: int) -> None:
    """Calls of all kinds, one after the other, cancelled at one moment or another of their lives."""
    async with aio.insecure_channel(target) as channel:
        methods = stub(channel)
        for number in range(count):
            match number % 3:
                case 0:
                    call = methods.Predictions(request("slow"))
                case 1:
                    call = methods.StreamPredictions(request("slow"))
                case _:
                    call = methods.StreamPredictions2(iter([request("slow", "s")] * 3))
            await asyncio.sleep(0.002 * (number % 4))
            call.cancel()
            assert await call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.OK)


def test_a_worker_that_dies_is_told_of(server: ServerProcess, channel: grpc.Channel) -> None:
    first = pid_of(channel)
    for method in (stub(channel).Predictions, lambda *a, **k: list(stub(channel).StreamPredictions(*a, **k))):
        with pytest.raises(grpc.RpcError) as failed:
            method(request("exit"), timeout=DEADLINE)
        assert failed.value.code() is grpc.StatusCode.INTERNAL
        assert failed.value.details() == "Worker died.\norg.pytorch.serve.http.InternalServerException"
        eventually(lambda: server.ready_workers("helpful"))
    answers = stub(channel).StreamPredictions2(iter([request("exit", "s"), request("", "s")]), timeout=DEADLINE)
    died, served = answers
    assert (died.status.code, died.status.message) == (13, "Worker died.")
    assert served.prediction not in (b"", first)


def test_thousands_of_streams_at_once(server: ServerProcess, channel: grpc.Channel, runner: asyncio.Runner) -> None:
    runner.run(_crowd(server.grpc_target(), 2000))
    assert pid_of(channel)


async def _crowd(target: str, count: int) -> None:
    """So many streams are open together; each is told, in its turn, what is wrong with its message."""
    async with aio.insecure_channel(target) as channel:
        streams = [stub(channel).StreamPredictions2() for _ in range(count)]
        for stream in streams:
            await stream.write(request())
        for stream in streams:
            answer = await stream.read()
            assert answer.status.message == "Parameter sequenceId is required."
        for stream in streams:
            await stream.done_writing()
        assert [await stream.read() for stream in streams] == [aio.EOF] * count


def test_a_client_that_does_not_read_is_not_waited_for(server: ServerProcess, channel: grpc.Channel) -> None:
    """The handler goes on, what it sends is dropped, and the worker serves others; memory does not grow with it."""
    assert server.process is not None
    frontend = psutil.Process(server.process.pid)
    pid, before = pid_of(channel), frontend.memory_info().rss
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server.grpc_target(), options) as lazy:
        stuck = stub(lazy).StreamPredictions(request("flood"))
        assert pid_of(channel) == pid  # after the flood, or its end
        assert frontend.memory_info().rss < before + (100 << 20)
        stuck.cancel()
    assert pid_of(channel) == pid


def test_the_deadline_of_a_model(server: ServerProcess, channel: grpc.Channel) -> None:
    """Is told at once, to clients that would wait longer; the worker goes on."""
    handler = "import time\n\ndef handle(data, context):\n    return data and (time.sleep(1) or ['late'])\n"
    pack(server.store, "strict", handler, config="clientTimeoutInMills: 100\n")
    assert server.register("strict.mar").status_code == 200
    (worker,) = server.ready_workers("strict")
    wanted = message("PredictionsRequest", model_name="strict", sequence_id="s")
    for method in (stub(channel).Predictions, lambda *a, **k: list(stub(channel).StreamPredictions(*a, **k))):
        with pytest.raises(grpc.RpcError) as late:
            method(wanted, timeout=DEADLINE)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        text = "Inference request timed out after 100 ms.\norg.pytorch.serve.http.RequestTimeoutException"
        assert late.value.details() == text
    (answer,) = stub(channel).StreamPredictions2(iter([wanted]), timeout=DEADLINE)
    assert answer.status.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert [ready["pid"] for ready in server.ready_workers("strict")] == [worker["pid"]]


def test_large_requests_do_not_stay(server: ServerProcess, channel: grpc.Channel) -> None:
    """Whatever becomes of them: half a gigabyte of refused, failed and abandoned ones leaves no trace."""
    assert server.process is not None
    frontend = psutil.Process(server.process.pid)
    pid, body = pid_of(channel), b"x" * 5_000_000
    large = {model: message("PredictionsRequest", model_name=model, input={"x": body}) for model in ("nope", "helpful")}
    tensor = message("ModelInferRequest", model_name="helpful", raw_input_contents=[body])  # for no input
    tensors = module("grpc_predict_v2_pb2_grpc").GRPCInferenceServiceStub(channel)
    before = frontend.memory_info().rss
    for _ in range(30):
        tensors.ModelInfer.future(tensor).cancel()
        with pytest.raises(grpc.RpcError):
            tensors.ModelInfer(tensor, timeout=DEADLINE)
        with pytest.raises(grpc.RpcError):
            stub(channel).Predictions(large["nope"], timeout=DEADLINE)
        stub(channel).Predictions.future(large["helpful"]).cancel()
        assert stub(channel).Predictions(large["helpful"], timeout=DEADLINE).prediction == pid
        list(stub(channel).StreamPredictions2(iter([large["helpful"]]), timeout=DEADLINE))
    assert frontend.memory_info().rss < before + (150 << 20)


def test_the_page_for_clients(server: ServerProcess, tmp_path: Path) -> None:
    """Its command makes the stubs, and its program gets an answer."""
    page = (ROOT / "docs" / "grpc.md").read_text()
    command, program = re.findall(r"^```(?:python)?\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for name in ("protos", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    making = [sys.executable, *shlex.split(command)[1:]]
    subprocess.run(making, cwd=tmp_path, check=True, capture_output=True)
    assert server.register("helpful.mar", model_name="digits").status_code == 200
    (tmp_path / "client.py").write_text(program.replace("127.0.0.1:7070", server.grpc_target()))
    answer = subprocess.check_output([sys.executable, "client.py"], cwd=tmp_path, text=True)
    (worker,) = server.ready_workers("digits")
    assert answer == f"{str(worker['pid']).encode()!r}\n"


def test_health(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE).status == serving
    watched = health.Watch(health_pb2.HealthCheckRequest(service="nothing"), timeout=DEADLINE)
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watched.cancel()


def test_reflection(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == {
        "org.pytorch.serve.grpc.inference.InferenceAPIsService",
        "org.pytorch.serve.grpc.openinference.GRPCInferenceService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    for symbol, file in (
        ("org.pytorch.serve.grpc.inference.PredictionsRequest", "inference.proto"),
        ("org.pytorch.serve.grpc.openinference.GRPCInferenceService", "open_inference_grpc.proto"),
        ("inference.ModelInferRequest", "grpc_predict_v2.proto"),
    ):
        assert database.FindFileContainingSymbol(symbol).name == file


def test_a_lame_server_is_not_healthy(tmp_path: Path) -> None:
    config = {"enable_grpc_health": "true", "lame_duck_delay": "1000", "drain_timeout": "1"}
    with ServerProcess(tmp_path, config=config) as server, grpc.insecure_channel(server.grpc_target()) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
        states = (answer.status for answer in watched)
        assert next(states) == health_pb2.HealthCheckResponse.SERVING
        assert server.process is not None
        server.process.terminate()
        assert next(states) == health_pb2.HealthCheckResponse.NOT_SERVING
        server.process.terminate()
        with pytest.raises(grpc.RpcError) as cut:
            next(states)
        assert cut.value.code() is grpc.StatusCode.UNAVAILABLE


def test_management_by_many_at_once(server: ServerProcess) -> None:
    """One of many registrations of a version wins, the others are told."""
    with grpc.insecure_channel(server.grpc_target("management")) as channel:
        register = module("management_pb2_grpc").ManagementAPIsServiceStub(channel).RegisterModel
        wanted = message("RegisterModelRequest", url="noop.mar", initial_workers=1, synchronous=True)
        calls = [register.future(wanted, timeout=DEADLINE) for _ in range(8)]
        codes = [call.code() for call in calls]
    assert sorted(code.name for code in codes) == ["ABORTED"] * 7 + ["OK"]
    assert len(server.ready_workers("noop")) == 1
