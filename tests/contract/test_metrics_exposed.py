"""Metrics in `prometheus` mode: what is exposed, and when it changes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest

from contract.grpc_server import GrpcServer, request
from contract.metrics_server import SAMPLE, await_value, families, labels, metered, scrape, total, value
from contract.server import ContractServer
from harness.server import eventually

CONFIG = {"metrics_mode": "prometheus", "disable_system_metrics": "true"}
check, fixed = pytest.mark.check, pytest.mark.fixed

HOST = socket.gethostname()
COUNTERS = ["Requests2XX", "Requests4XX", "Requests5XX"]
LATENCIES = ["ts_inference_latency_microseconds", "ts_queue_latency_microseconds"]
SYSTEM = ["CPUUtilization", "MemoryUsed", "MemoryAvailable", "MemoryUtilization", "DiskUsage", "DiskUtilization"]
SYSTEM += ["DiskAvailable", "GPUMemoryUtilization", "GPUMemoryUsed", "GPUUtilization"]
GAUGES = ["QueueTime", "WorkerThreadTime", "WorkerLoadTime", *SYSTEM, "HandlerTime", "PredictionTime"]
EXPOSED = {
    **dict.fromkeys([*COUNTERS, "ts_inference_requests_total", *LATENCIES], "counter"),
    **dict.fromkeys(GAUGES, "gauge"),
}


@pytest.fixture(scope="module")
def model(server: ContractServer) -> Iterator[str]:
    with metered(server) as name:
        yield name


def counted(server: ContractServer, *names: str) -> list[float]:
    """Values of some metrics in one scrape, summed over their labels."""
    text = scrape(server)
    return [total(text, name) for name in names]


@check("metrics", 3)
def test_every_definition_is_exposed_before_any_sample(server: ContractServer) -> None:
    """19 of the server, 2 of workers."""
    assert families(scrape(server)) == EXPOSED
    head = "# HELP WorkerLoadTime Torchserve prometheus gauge metric with unit: Milliseconds\n"
    assert f"{head}# TYPE WorkerLoadTime gauge\n" in scrape(server)


@check("metrics", 4)
def test_form_of_samples(server: ContractServer, model: str) -> None:
    """A comma behind the last label, a point in every number."""
    server.predict(model)
    text = scrape(server)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) > 5
    assert all(map(SAMPLE.fullmatch, lines))
    assert all("." in line.rpartition(" ")[2] for line in lines)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@check("metrics", 5)
def test_series_by_requested_version(server: ContractServer, model: str) -> None:
    """`default` where none was asked for."""
    before = value(server, "ts_inference_requests_total", model_version="default")
    server.predict(model)
    server.request("POST", f"/predictions/{model}/1.0")
    series = f'ts_inference_requests_total{{model_name="{model}",model_version="1.0",hostname="{HOST}",}} 1.0\n'
    assert series in scrape(server)
    own = {"model_name": model, "model_version": "default", "hostname": HOST}
    assert value(server, "ts_inference_requests_total", **own) == before + 1
    for name in LATENCIES:
        assert labels(server, name)[0] == ["model_name", "model_version", "hostname"]
        assert value(server, name, model_version="1.0") > 0


@check("metrics", 6)
def test_an_unknown_model_is_no_inference(server: ContractServer, model: str) -> None:
    """Only a 4XX."""
    before = counted(server, "ts_inference_requests_total", "Requests4XX")
    assert server.predict("nobody").status_code == 404
    after = counted(server, "ts_inference_requests_total", "Requests4XX")
    assert after == [before[0], before[1] + 1]


@check("metrics", 7)
def test_an_exception_counts_as_request_without_latency(server: ContractServer, model: str) -> None:
    """And leaves no times of the worker."""
    names = ["Requests5XX", "ts_inference_requests_total", *LATENCIES]
    server.predict(model)
    eventually(lambda: labels(server, "PredictionTime"))
    times = counted(server, "PredictionTime")
    before = counted(server, *names)
    assert server.request("POST", f"/predictions/{model}", json={"do": "raise"}).status_code == 503
    after = counted(server, *names)
    assert after == [before[0] + 1, before[1] + 1, *before[2:]]
    assert counted(server, "PredictionTime") == times


@check("metrics", 7)
def test_statuses_of_handlers(server: ContractServer, model: str) -> None:
    """Count in their class; the worker has answered, so there is a latency."""
    names = ["Requests4XX", "Requests5XX", "ts_inference_latency_microseconds"]
    before = counted(server, *names)
    server.request("POST", f"/predictions/{model}", json={"do": "status", "code": 404})
    after = counted(server, *names)
    assert after[:2] == [before[0] + 1, before[1]]
    assert after[2] > before[2]


@check("metrics", 7)
@fixed("redirects")
def test_redirects_of_handlers_are_no_errors(server: ContractServer, model: str) -> None:
    before = counted(server, *COUNTERS)
    server.request("POST", f"/predictions/{model}", json={"do": "status", "code": 302})
    after = counted(server, *COUNTERS)
    assert after == [before[0] + 1, *before[1:]], "the first scrape"


@check("metrics", 8)
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?name[]=Requests2XX", {"Requests2XX"}),
        ("?name%5B%5D=Requests2XX&name[]=WorkerLoadTime", {"Requests2XX", "WorkerLoadTime"}),
        ("?name[]=nosuch", set()),
        ("?name[]=", set()),
        ("?name[]=Requests2XX,WorkerLoadTime", set()),
        ("?name=Requests2XX", set(EXPOSED)),
    ],
)
def test_filter(server: ContractServer, model: str, query: str, found: set[str]) -> None:
    """By the names of samples; a family without any is left out."""
    assert set(families(scrape(server, query))) == found


@check("metrics", 9)
@pytest.mark.parametrize("api", ["Inference", "Management"])
def test_other_ports_have_no_metrics(server: ContractServer, api: str) -> None:
    answer = server.request("GET", "/metrics", api)
    assert (answer.status_code, answer.json()["type"]) == (404, "ResourceNotFoundException")


@check("metrics", 8)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_any_method_scrapes(server: ContractServer, method: str) -> None:
    answer = server.request(method, "/metrics/any/path", "Metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(answer.headers["content-length"]) > 1000
    assert bool(answer.content) == (method != "HEAD")


@check("metrics", 8)
def test_the_format_is_not_negotiated(server: ContractServer) -> None:
    """Whatever the scraper says, unless the server is told to."""
    accepted = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
    answer = server.request("GET", "/metrics", "Metrics", headers=accepted)
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "content-encoding" not in answer.headers


@check("metrics", 8)
def test_a_scrape_counts_behind_itself(server: ContractServer) -> None:
    first = value(server, "Requests2XX")
    assert value(server, "Requests2XX") == first + 1


@check("metrics", 15)
def test_undefined_metrics_are_dropped(server: ContractServer, model: str) -> None:
    """The handler records eight; none is in the definitions."""
    server.predict(model)
    assert "InferenceRequestCount" not in scrape(server)
    assert server.log("model_metrics.log") == server.log("ts_metrics.log") == ""


@check("metrics", 18)
def test_no_system_metrics(server: ContractServer, model: str) -> None:
    """Nor the memory of workers."""
    text = scrape(server)
    assert not any(line.startswith(tuple(SYSTEM)) for line in text.splitlines())
    assert [worker["memoryUsage"] for worker in server.workers(model)] == [0]


@check("metrics", 24)
def test_grpc_predictions(server: ContractServer, model: str) -> None:
    """Count as inferences, never by status."""
    with ExitStack() as stack:
        before = counted(server, "ts_inference_requests_total", *COUNTERS)
        client = GrpcServer(server, stack).inference()
        client.Predictions(request(model), timeout=60)
        with pytest.raises(grpc.RpcError):
            client.Predictions(request("nobody"), timeout=60)
    after = counted(server, "ts_inference_requests_total", *COUNTERS)
    assert after == [before[0] + 1, before[1] + 1, *before[2:]], "the first scrape"


@check("metrics", 24)
@fixed("grpc latencies")
def test_grpc_predictions_have_latencies(server: ContractServer, model: str) -> None:
    before = counted(server, *LATENCIES)
    with ExitStack() as stack:
        GrpcServer(server, stack).inference().Predictions(request(model), timeout=60)
    after = counted(server, *LATENCIES)
    assert all(now > then for now, then in zip(after, before, strict=True))


@check("metrics", 5)
def test_series_outlive_their_model(server: ContractServer) -> None:
    """They end with the server alone."""
    with metered(server, "brief") as name:
        server.predict(name)
        await_value(server, 1, "ts_inference_requests_total", model_name=name)
    assert value(server, "ts_inference_requests_total", model_name="brief") == 1


@check("metrics", 3)
def test_load_time_of_workers(server: ContractServer, model: str) -> None:
    """By the name of the worker."""
    (worker,) = server.workers(model)
    own = {"WorkerName": f"W-{worker['id']}-{model}_1.0", "Level": "Host", "Hostname": HOST}
    assert value(server, "WorkerLoadTime", **own) > 1


@check("metrics", 3)
@fixed("load times")
def test_load_time_after_a_crash_is_that_of_the_new_process(server: ContractServer) -> None:
    """So it is less than the time since the crash."""
    with metered(server, "crashing") as name:
        (worker,) = server.workers(name)
        crash = time.monotonic()
        server.request("POST", f"/predictions/{name}", json={"do": "exit"})
        eventually(lambda: [one["pid"] for one in server.ready_workers(name)] not in ([], [worker["pid"]]))
        assert 0 < load_time(server, worker["id"], name) <= (time.monotonic() - crash) * 1000


def load_time(server: ContractServer, worker: str, model: str) -> float:
    return value(server, "WorkerLoadTime", WorkerName=f"W-{worker}-{model}_1.0")
