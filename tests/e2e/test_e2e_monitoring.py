"""The files of docs/monitoring, with a real Prometheus that scrapes a started server; traces and receipts of one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from contract.server import free_ports
from harness.archives import pack
from harness.otlp import Collector, attributes_of
from harness.prometheus import Prometheus, promtool
from harness.server import ServerProcess, eventually
from harness.stubs import message, module
from harness.system import needs

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
ALERTS = yaml.safe_load((MONITORING / "alerts.yaml").read_text())

# Derived from no class, so it reports the HandlerTime itself. Fails where the body says so.
HANDLER = """
def handle(data, context):
    if data is None:
        return None
    context.metrics.add_time("HandlerTime", 1.5)
    if any(bytes(row.get("body", b"")) == b"fail" for row in data):
        raise ValueError("no")
    return ["ok"] * len(data)
"""
GPU = re.compile(r"\bGPU")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CONFIG = {
    "metrics_mode": "prometheus",
    "metrics_histograms": "true",
    "metric_time_interval": 1,
    "server_timing": "true",
    "opentelemetry_traces": "true",
}
# What the dashboards ask that people have for TorchServe, and the names that the checks of others map.
TORCHSERVE_QUERIES = [
    "rate(ts_inference_latency_microseconds[1m]) / 1000",
    "rate(ts_queue_latency_microseconds[1m]) / 1000",
    "sum(ts_inference_requests_total)",
    "sum(rate(ts_inference_requests_total[1m]))",
    "sum by (model_name) (rate(ts_inference_requests_total[5m]))",
    "rate(ts_inference_latency_microseconds[5m]) / rate(ts_inference_requests_total[5m]) / 1000",
    "ts_queue_latency_microseconds",
    *("CPUUtilization", "DiskAvailable", "DiskUsage", "DiskUtilization"),
    *("MemoryAvailable", "MemoryUsed", "MemoryUtilization"),
    *("Requests2XX", "Requests4XX", "Requests5XX"),
    *("QueueTime", "WorkerThreadTime", "WorkerLoadTime", "HandlerTime", "PredictionTime"),
]


def expressions() -> list[str]:
    """Of all panels, as Grafana sends them when everything is chosen."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    chosen = {"$__rate_interval": "1m", "$job": "modelserver", "$instance": ".*", "$model": ".*"}
    for variable, value in chosen.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[ServerProcess]:
    directory = tmp_path_factory.mktemp("server")
    with ServerProcess(directory, config=CONFIG, environment=collector.environment) as server:
        pack(server.store, "m", HANDLER)
        assert server.register("m.mar", batch_size=4, max_batch_delay=20).status_code == 200
        use(server)
        yield server


def use(server: ServerProcess) -> None:
    """Every class of response, and batches."""
    with ThreadPoolExecutor(4) as clients:
        assert {answer.status_code for answer in clients.map(lambda _: server.predict("m"), range(8))} == {200}
    assert server.predict("m", b"fail").status_code == 503
    assert server.predict("nobody").status_code == 404


@pytest.fixture(scope="module")
def prometheus(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has scraped before and after some more requests, so that there are rates."""
    target = urlsplit(server.url("Metrics")).netloc
    with Prometheus(tmp_path_factory.mktemp("prometheus") / "own", target, free_ports(1)[0]) as prometheus:
        eventually(lambda: prometheus.query("Requests5XX"))
        use(server)
        eventually(lambda: prometheus.query("increase(Requests5XX[1m]) > 0"))
        eventually(lambda: prometheus.query("MemoryUsed"))
        yield prometheus


@needs("prometheus")
def test_every_query_of_the_dashboard_has_an_answer(prometheus: Prometheus) -> None:
    """But for those on GPUs, of which there may be none."""
    for query in expressions():
        if not GPU.search(query):
            eventually(lambda query=query: prometheus.query(query))  # type: ignore[misc]


@needs("prometheus")
def test_choices_of_the_dashboard(prometheus: Prometheus) -> None:
    """Its variables list the values of labels that exist."""
    queries = [
        variable["query"]["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"
    ]
    for query in queries:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert found
        wanted = found[1].replace("$job", "modelserver")
        (series, *_) = eventually(lambda wanted=wanted: prometheus.query(wanted))  # type: ignore[misc]
        assert found[2] in series["metric"]


@needs("prometheus")
@pytest.mark.parametrize("query", TORCHSERVE_QUERIES)
def test_queries_of_other_dashboards_have_answers(prometheus: Prometheus, query: str) -> None:
    eventually(lambda: prometheus.query(query))  # nothing while a scrape fails, as on a busy machine


@needs("prometheus")
def test_every_alert_is_computed_and_none_is_raised_without_a_reason(prometheus: Prometheus) -> None:
    """The server has failed a few requests on purpose; the disk is not its own."""
    raised = [rule["alert"] for group in ALERTS["groups"] for rule in group["rules"] if prometheus.query(rule["expr"])]
    assert set(raised) <= {"ModelserverErrors", "ModelserverModelFails", "ModelserverDisk", "ModelserverMemory"}


@needs("prometheus")
def test_scrapes_succeed(prometheus: Prometheus) -> None:
    """Though this Prometheus would rather have OpenMetrics, in which counters have other names."""
    (target,) = prometheus.targets()
    assert (target["health"], target["lastError"]) == ("up", "")


@needs("promtool")
def test_the_checker_accepts_what_is_exposed(server: ServerProcess) -> None:
    """It has advice on names, which are TorchServe's, and nothing else to say."""
    checked = promtool("check", "metrics", text=server.request("GET", "/metrics", "Metrics").text)
    assert checked.returncode in (0, 3), checked.stderr  # 3: advice
    assert "error" not in checked.stderr


@needs("promtool")
def test_alerts_are_raised_when_they_should_be(tmp_path: Path) -> None:
    """And only then, in scenes that are played minute by minute."""
    for source in (MONITORING / "alerts.yaml", Path(__file__).with_name("alert_scenes.yaml")):
        shutil.copy(source, tmp_path)
    played = promtool("test", "rules", "alert_scenes.yaml", directory=tmp_path)
    assert played.returncode == 0, played.stdout + played.stderr
    scenes = (tmp_path / "alert_scenes.yaml").read_text()
    assert [rule["alert"] for rule in ALERTS["groups"][0]["rules"] if f"alertname: {rule['alert']}" not in scenes] == []


@needs("promtool")
def test_the_example_configuration_is_good() -> None:
    checked = promtool("check", "config", "prometheus.yaml", directory=MONITORING)
    assert checked.returncode == 0, checked.stderr


def test_a_parser_of_the_format_reads_everything(server: ServerProcess) -> None:
    text = server.request("GET", "/metrics", "Metrics").text
    parsed = {family.name: family for family in text_string_to_metric_families(text)}
    labels = {"model_name": "m", "model_version": "1.0"}
    histogram = parsed["modelserver_request_duration_seconds"]
    (count,) = [sample for sample in histogram.samples if sample.name.endswith("_count")]
    assert (count.labels, histogram.type) == (labels, "histogram")
    assert count.value >= 8


def test_receipts(server: ServerProcess) -> None:
    """The times of a request, in its response; the parts are no more than the whole."""
    header = server.predict("m").headers["server-timing"]
    times = {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)", header)}
    assert list(times) == ["queue", "worker", "handler", "total"]
    assert times["handler"] <= times["worker"] + 0.001
    assert times["queue"] + times["worker"] <= times["total"] + 0.002
    assert "server-timing" not in server.request("GET", "/ping").headers


def test_traces(server: ServerProcess, collector: Collector) -> None:
    """From the caller's span to the handler."""
    caller = "00f067aa0ba902b7"
    answer = server.predict("m", headers={"traceparent": f"00-{TRACE}-{caller}-01"})
    spans = collector.trace(answer.headers["x-request-id"])
    assert {"predict m", "queue", "worker", "handler"} <= spans.keys()
    whole = spans["predict m"]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, caller)
    assert attributes_of(whole)["modelserver.model.version"] == "1.0"
    assert attributes_of(whole)["http.response.status_code"] == 200
    handler = spans["handler"]
    assert whole.start_time_unix_nano <= handler.start_time_unix_nano < handler.end_time_unix_nano
    assert handler.end_time_unix_nano <= whole.end_time_unix_nano


def test_traces_of_grpc(server: ServerProcess, collector: Collector) -> None:
    """Their metadata carries the same header."""
    parent = TRACE[::-1]
    with grpc.insecure_channel(server.grpc_target()) as channel:
        stub = module("inference_pb2_grpc").InferenceAPIsServiceStub(channel)
        metadata = [("traceparent", f"00-{parent}-00f067aa0ba902b7-01")]
        stub.Predictions(message("PredictionsRequest", model_name="m", input={}), metadata=metadata, timeout=60)
    eventually(lambda: {"predict m", "handler"} <= {span.name for span in collector.of_trace(parent)})
    (whole,) = [span for span in collector.of_trace(parent) if span.name == "predict m"]
    assert attributes_of(whole)["rpc.method"] == "Predictions"


def test_traces_of_many_requests_in_one_call(server: ServerProcess, collector: Collector) -> None:
    """Each message is a prediction of its own."""
    parent = "c" * 32
    with grpc.insecure_channel(server.grpc_target()) as channel:
        stub = module("inference_pb2_grpc").InferenceAPIsServiceStub(channel)
        wanted = [message("PredictionsRequest", model_name="m", sequence_id="s", input={}) for _ in range(3)]
        metadata = [("traceparent", f"00-{parent}-00f067aa0ba902b7-01")]
        assert len(list(stub.StreamPredictions2(iter(wanted), metadata=metadata, timeout=60))) == 3
    eventually(lambda: [span.name for span in collector.of_trace(parent)].count("predict m") == 3)


def counts(server: ServerProcess) -> dict[str, Any]:
    """Sum of the samples of each counter."""
    text = server.request("GET", "/metrics", "Metrics").text
    families = text_string_to_metric_families(text)
    return {family.name: sum(sample.value for sample in family.samples) for family in families}


DYING = """
import os
def handle(data, context):
    if data is None:
        return None
    for row in data:
        if bytes(row.get("body", b"")) == b"die":
            os._exit(1)
    context.metrics.add_counter("Handled", len(data))
    return ["ok"] * len(data)
"""


def test_counts_are_exact_while_workers_die(tmp_path: Path) -> None:
    """Every request is counted once, by the class that its client saw; the metrics of the handler survive it."""
    config = {"metrics_mode": "prometheus", "model_metrics_auto_detect": "true", "disable_system_metrics": "true"}
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(tmp_path, config=config))
        pack(server.store, "dying", DYING)
        assert server.register("dying.mar", workers=2).status_code == 200
        clients = stack.enter_context(ThreadPoolExecutor(16))
        bodies = [b"die" if number % 40 == 7 else b"x" for number in range(400)]
        before = counts(server)
        statuses = list(clients.map(lambda body: server.predict("dying", body).status_code, bodies))
        after = counts(server)
        assert set(statuses) <= {200, 500, 503}
        assert statuses.count(200) >= 300
        grown = {name: after.get(name, 0) - before.get(name, 0) for name in after}
        assert grown["Requests2XX"] == statuses.count(200) + 1, "the first scrape"
        assert grown["Requests5XX"] == len(statuses) - statuses.count(200)
        assert grown["ts_inference_requests"] == len(statuses)
        assert grown["Handled"] == statuses.count(200)
