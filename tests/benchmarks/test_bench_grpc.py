"""Load over gRPC: what h2load is given and what it says, and a run against the server that answers everything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.contenders import Contender, nothing
from benchmarks.figures import CLIENT_CPU, P50, P99, RATE, SERVER_CPU, Samples, grpc_figure
from benchmarks.grpc_load import GrpcBench
from benchmarks.h2load import (
    UnreadableH2loadReport,
    parse_run,
    predictions_request,
    response_message,
    response_size,
    run_h2load,
)
from benchmarks.plan import GRPC_POINTS, Plan
from benchmarks.servers import EchoServer
from benchmarks.targets import GRPC_ECHO
from harness.stubs import module

REPORT = """\
starting benchmark...
finished in 1.00s, 13390.00 req/s, 890.31KB/s
requests: 13390 total, 13390 started, 13390 done, 13390 succeeded, 2 failed, 0 errored, 0 timeout
status codes: 13390 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 890.31KB (911676) total, 104.55KB (107064) headers (space savings 96.21%), 306.63KB (120510) data
                     min         max         mean         sd        +/- sd
time for request:       91us     19.78ms      2.37ms      1.80ms    90.31%
"""
TIMES = [number / 1000 for number in range(1, 102)]
PLAN = Plan((), rounds=1, duration=1, warm_up=1)
needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")


def test_messages_are_what_protobuf_would_write() -> None:
    messages = module("inference_pb2")
    request = predictions_request("noop_b1", "x")
    assert request[:1] == b"\0" and int.from_bytes(request[1:5], "big") == len(request) - 5
    read = messages.PredictionsRequest.FromString(request[5:])
    assert (read.model_name, dict(read.input)) == ("noop_b1", {"data": b"x"})
    assert messages.PredictionResponse.FromString(response_message(b"ok")).prediction == b"ok"
    assert response_size(b"ok") == len(response_message(b"ok")) + 5


def test_a_report() -> None:
    run = parse_run(REPORT, TIMES, 9, 2, 0.5)
    assert (run.requests, run.rate, run.cpu) == (13390, 6695.0, 0.5)
    assert [run.p50, run.p99] == pytest.approx([0.051, 0.1])
    assert run.errors == 2


def test_calls_without_a_message_have_failed() -> None:
    assert parse_run(REPORT, TIMES, 18, 2, 0.5).errors == 2 + 13390 // 2


@pytest.mark.parametrize(
    ("text", "times"),
    [("", TIMES), (REPORT, []), (REPORT.replace("traffic", "noise"), TIMES), (REPORT.replace("done", "gone"), TIMES)],
    ids=["empty", "no times", "no data", "no counts"],
)
def test_anything_else_is_no_report(text: str, times: list[float]) -> None:
    with pytest.raises(UnreadableH2loadReport):
        parse_run(text, times, 9, 2, 0.5)


@needs_h2load
def test_nobody_there(tmp_path: Path) -> None:
    request = tmp_path / "m.grpc"
    request.write_bytes(predictions_request("m", "x"))
    with pytest.raises(UnreadableH2loadReport):
        run_h2load("127.0.0.1:1", request, b"ok", 1, 1)


def run(contender: Contender, directory: Path) -> Samples:
    samples = Samples()
    GrpcBench([contender], PLAN, directory, samples, lambda line: None).run()
    return samples


@needs_h2load
def test_every_point_is_measured_in_every_round(tmp_path: Path) -> None:
    samples = run(Contender(GRPC_ECHO, "1", None, nothing, launch_grpc=EchoServer), tmp_path)
    assert samples.void == []
    figures = {grpc_figure(point, kind) for point in GRPC_POINTS for kind in (RATE, P50, P99, SERVER_CPU, CLIENT_CPU)}
    counts = {name: len(values) for name, values in samples.values[GRPC_ECHO].items()}
    assert counts == dict.fromkeys(figures, PLAN.rounds)


def test_servers_without_grpc_are_left_out(tmp_path: Path) -> None:
    assert not run(Contender(GRPC_ECHO, "1", None, nothing), tmp_path).values


def test_without_a_load_generator_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    samples = run(Contender(GRPC_ECHO, "1", None, nothing, launch_grpc=EchoServer), tmp_path)
    assert samples.void == ["all servers, gRPC: the load generator `h2load` is not installed"] and not samples.values
