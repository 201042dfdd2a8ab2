"""Metrics in `log` mode, which is the default one: the lines of both files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from contract.metrics_server import messages, metered, metric_names
from contract.server import ContractServer
from harness.server import eventually

CONFIG = {"metric_time_interval": 3600}
check, fixed = pytest.mark.check, pytest.mark.fixed

TS, MODEL = "ts_metrics.log", "model_metrics.log"
HOST = r"\|#hostname:[^,:]+"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
LINE = re.compile(rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{{3}} - \w+\.\w+:\S+\|#\S*{HOST},\S*timestamp:\d{{10}}")


@pytest.fixture(scope="module")
def model(server: ContractServer) -> Iterator[str]:
    with metered(server, with_base_handler=True) as name:
        yield name


def length(server: ContractServer, log: str) -> int:
    return len(server.log(log).splitlines())


def inferences(server: ContractServer, since: int, count: int = 1) -> list[str]:
    """What so many requests left in the log of the server, behind that many lines, once the last batch is through."""

    def look() -> list[str]:
        lines = messages(server, TS, since=since)
        names = [line.partition(".")[0] for line in lines]
        if "ts_inference_requests_total" not in names:
            return []
        begin = names.index("ts_inference_requests_total")  # what is older belongs to others
        over = names[begin:].count("QueueTime") == count and names[-1] == "WorkerThreadTime"
        return lines[begin:] if over else []

    return eventually(look)


def reported(server: ContractServer, since: int, name: str) -> list[str]:
    """Messages in the log of workers behind that many lines, once there is an update of this metric."""
    eventually(lambda: name in metric_names(server, MODEL, since=since))
    return messages(server, MODEL, since=since)


@check("metrics", 1)
def test_the_default_mode(server: ContractServer) -> None:
    """Both files are there from the start."""
    assert "Metrics mode: LOG" in server.output
    assert re.search(r"Metrics config path: \S+/ts/configs/metrics.yaml", server.output)
    assert "Disable system metrics: false" in server.output
    assert "System metrics command: default" in server.output
    assert "Successfully loaded metrics configuration from " in server.output
    for log in (TS, MODEL):
        assert (server.directory / "logs" / log).exists()


@check("metrics", 2)
def test_nothing_is_exposed(server: ContractServer, model: str) -> None:
    """An empty answer."""
    answer = server.request("GET", "/metrics", "Metrics")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["content-length"] == "0"


@check("metrics", 13)
def test_what_one_prediction_leaves(server: ContractServer, model: str) -> None:
    """Six lines of the server in their order, two of the worker with the id of the request."""
    behind = length(server, TS), length(server, MODEL)
    answer = server.predict(model)
    own = inferences(server, behind[0])
    labels = rf"\|#model_name:{model},model_version:default{HOST},timestamp:\d+"
    host = rf"\|#Level:Host{HOST},timestamp:\d+"
    patterns = [
        rf"ts_inference_requests_total\.Count:1\.0{labels}",
        rf"Requests2XX\.Count:1\.0{host}",
        rf"ts_inference_latency_microseconds\.Microseconds:\d+\.\d+{labels}",
        rf"ts_queue_latency_microseconds\.Microseconds:\d+\.\d+{labels}",
        rf"QueueTime\.Milliseconds:\d+\.0{host}",
        rf"WorkerThreadTime\.Milliseconds:\d+\.0{host}",
    ]
    assert [bool(re.fullmatch(*pair)) for pair in zip(patterns, own, strict=True)] == [True] * 6, own
    times = [text for text in reported(server, behind[1], "PredictionTime") if "Time.ms" in text]
    request_id = answer.headers["x-request-id"]
    source = rf"\|#ModelName:{model},Level:Model{HOST},requestID:{request_id},timestamp:\d+"
    for name in ("HandlerTime", "PredictionTime"):
        assert any(re.fullmatch(rf"{name}\.ms:\d+\.\d+{source}", text) for text in times), times


@check("metrics", 13)
def test_form_of_lines(server: ContractServer, model: str) -> None:
    behind = length(server, TS)
    server.predict(model)
    inferences(server, behind)
    eventually(lambda: "PredictionTime" in server.log(MODEL))
    for log in (TS, MODEL):
        lines = server.log(log).splitlines()
        assert lines
        assert [line for line in lines if not LINE.fullmatch(line)] == []


@check("metrics", 13)
def test_lines_on_the_console(server: ContractServer, model: str) -> None:
    """Three colons before the value: some tools count them."""
    behind = length(server, TS)
    server.predict(model)
    inferences(server, behind)
    line = eventually(lambda: next((line for line in server.lines if " TS_METRICS - WorkerThreadTime" in line), ""))
    assert re.match(r"\S+ \[INFO \] \S+ TS_METRICS - ", line)
    assert float(line.split("|")[0].split(":")[3]) >= 0


@check("metrics", 13)
def test_loads_are_round_trips_too(server: ContractServer) -> None:
    """The load time, then the time that the server itself took."""
    behind = length(server, TS)

    def found() -> list[str]:
        return [name for name in metric_names(server, TS, since=behind) if name.startswith("Worker")]

    with metered(server, "another"):
        assert eventually(lambda: names if len(names := found()) >= 2 else []) == [
            "WorkerLoadTime",
            "WorkerThreadTime",
        ]


@check("metrics", 14)
def test_batches(server: ContractServer) -> None:
    """Times once, with the ids of all requests; everything else for each request."""
    with metered(server, "paired", batch_size=2, max_batch_delay=20_000) as name, ThreadPoolExecutor(2) as clients:
        behind = length(server, TS), length(server, MODEL)
        answers = list(clients.map(lambda _: server.predict(name), range(2)))
        ids = {answer.headers["x-request-id"] for answer in answers}
        (line,) = [text for text in reported(server, behind[1], "PredictionTime") if text.startswith("PredictionTime")]
        names = [text.partition(".")[0] for text in inferences(server, behind[0], 2)]
    found = re.search(rf"requestID:({UUID}),({UUID}),timestamp", line)
    assert found
    assert set(found.groups()) == ids
    assert [names.count(name) for name in ("ts_queue_latency_microseconds", "WorkerThreadTime")] == [2, 1]


@check("metrics", 15)
def test_undefined_metrics_are_in_no_log(server: ContractServer, model: str) -> None:
    server.predict(model)
    eventually(lambda: "PredictionTime" in server.log(MODEL))
    assert "InferenceRequestCount" not in server.log(MODEL)


@check("metrics", 17)
def test_printed_metrics(server: ContractServer, model: str) -> None:
    """Are no model output; they keep their host, and get the time of the server."""
    behind = length(server, MODEL)
    line = "[METRICS]HandlerTime.Milliseconds:12345678|#ModelName:own,Level:Model|#type:GAUGE|#hostname:h,1700000000"
    server.request("POST", f"/predictions/{model}", json={"do": "print", "stream": "stderr", "line": line})
    pattern = r"HandlerTime\.ms:1\.2345678E7\|#ModelName:own,Level:Model\|#hostname:h,requestID:null,timestamp:(\d+)"
    found = eventually(lambda: re.search(pattern, "\n".join(messages(server, MODEL, since=behind))))
    assert found
    assert found[1] != "1700000000"
    assert "ModelName:own" not in server.log("model_log.log")


@check("metrics", 23)
def test_streams(server: ContractServer) -> None:
    """The access line at the first piece, the latency once at the end."""
    with metered(server, "streaming") as name:
        behind = length(server, TS)
        answer = server.request("POST", f"/predictions/{name}", json={"do": "pieces"})
        assert answer.text == "part0part1part2done"
        assert [text.partition(".")[0] for text in inferences(server, behind)] == [
            *("ts_inference_requests_total", "Requests2XX", "ts_inference_latency_microseconds"),
            *("ts_queue_latency_microseconds", "QueueTime", "WorkerThreadTime"),
        ]
        assert server.logs("access_log.log", f"/predictions/{name} ").count(f"/predictions/{name} ") == 1


@check("metrics", 23)
def test_streams_are_told_when_they_begin(server: ContractServer) -> None:
    """They may last for minutes."""
    with metered(server, "slowly") as name:
        behind = length(server, TS)
        with httpx.stream(
            "POST", f"{server.url()}/predictions/{name}", json={"do": "pieces", "gate": "late"}, timeout=30
        ) as answer:
            try:
                assert answer.status_code == 200
                eventually(lambda: f"/predictions/{name} " in server.log("access_log.log"))
                eventually(lambda: "Requests2XX" in metric_names(server, TS, since=behind))
                assert "ts_inference_latency_microseconds" not in metric_names(server, TS, since=behind)
            finally:
                server.open("late")
            answer.read()
        inferences(server, behind)


@check("metrics", 25)
def test_failed_requests(server: ContractServer) -> None:
    """Leave their class and nothing of success."""
    with metered(server, "failing") as name:
        behind = length(server, TS)
        assert server.request("POST", f"/predictions/{name}", json={"do": "exit"}).status_code == 500
        eventually(lambda: "Requests5XX" in metric_names(server, TS, since=behind))
        found = set(metric_names(server, TS, since=behind))
        assert {"ts_inference_requests_total", "Requests5XX"} <= found
        assert not found & {"ts_inference_latency_microseconds", "QueueTime"}
        eventually(lambda: server.ready_workers(name))
