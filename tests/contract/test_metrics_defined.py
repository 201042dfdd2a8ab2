"""Metric definitions of the user, worker metrics that nobody has defined, and settings that other tests do not have."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from contract.metrics_server import (
    await_value,
    families,
    labels,
    messages,
    metered,
    metric_names,
    samples,
    scrape,
    value,
)
from contract.server import ContractServer, start
from harness.server import eventually

check, fixed = pytest.mark.check, pytest.mark.fixed

HOST = socket.gethostname()
DEFINITIONS = """
dimensions:
  - &level "lvl"
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [*level, "host"]}
    - {name: Bare, unit: Count, dimensions: []}
  gauge:
    - {name: CPUUtilization, unit: Percent, dimensions: [Level, Hostname]}
    - {name: FromScript, unit: Count, dimensions: [Level, Place, Hostname]}
  histogram:
    - {name: QueueTime, unit: Milliseconds, dimensions: [Level, Hostname]}
model_metrics:
  counter:
    - {name: HandlerTime, unit: ms, dimensions: [ModelName, Level]}
    - {name: InitializeCallCount, unit: Count, dimensions: [ModelName, Level]}
  histogram:
    - {name: ExamplePercentMetric, unit: Percent, dimensions: [ModelName, Level]}
  gauge:
    - {name: SizeOfImage, unit: kB, dimensions: [ModelName]}
"""
SCRIPT = """
import os
import sys

pids = sys.stdin.readline().strip()
print("CPUUtilization.Percent:42.5|#Level:Host|#hostname:h,1700000000")
print("FromScript.Count:7|#Level:Host,place:here|#hostname:h,1700000000")
print("NotDefined.Count:7|#Level:Host|#hostname:h,1700000000")
print()
for pid in pids.split(",") if pids else ():
    print(f"{pid}:{int(pid) * 1000}")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    """Own definitions, a command for system metrics, and whatever workers report."""
    directory = tmp_path_factory.mktemp("server")
    (directory / "own.yaml").write_text(DEFINITIONS)
    (directory / "collect.py").write_text(SCRIPT)
    config = {
        "metrics_mode": "prometheus",
        "metrics_config": "own.yaml",
        "model_metrics_auto_detect": "true",
        "system_metrics_cmd": directory / "collect.py",
        "metric_time_interval": 3,
    }
    with ExitStack() as stack:
        yield start(stack, directory, config=config)


@pytest.fixture(scope="module")
def model(server: ContractServer) -> Iterator[str]:
    with metered(server) as name:
        server.predict(name)
        yield name


@check("metrics", 21)
def test_types_and_labels_of_the_file_win(server: ContractServer, model: str) -> None:
    """What is measured does not depend on them."""
    await_value(server, 1, "PostprocessCallCount")
    text = scrape(server)
    assert {name: families(text)[name] for name in ("QueueTime", "HandlerTime")} == {
        "QueueTime": "histogram",
        "HandlerTime": "counter",
    }
    bounds = [found["le"] for found, _ in samples(text, "QueueTime_bucket")]
    assert " ".join(bounds) == "0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 +Inf"
    assert value(server, "QueueTime_count", Level="Host", Hostname=HOST) == 1
    assert f'Requests2XX{{lvl="Host",host="{HOST}",}} ' in text
    assert "Bare 0.0\n" in text
    assert "WorkerThreadTime" not in text


@check("metrics", 16)
def test_labels_of_the_handlers_metrics(server: ContractServer, model: str) -> None:
    """Its own first, then those that the definition or the method adds, the host last."""
    await_value(server, 1, "PostprocessCallCount")
    expected = {
        "InferenceRequestCount": ["Hostname"],
        "InitializeCallCount": ["ModelName", "Level", "Hostname"],
        "PreprocessCallCount": ["ModelName", "Level", "Hostname"],
        "PostprocessCallCount": ["Stage", "ModelName", "Level", "Hostname"],
        "RequestBatchSize": ["ModelName", "Level", "Hostname"],
        "HandlerMethodTime": ["MethodName", "ModelName", "Level", "Hostname"],
        "ExamplePercentMetric_count": ["ModelName", "Level", "Hostname"],
    }
    assert {name: labels(server, name) for name in expected} == {name: [each] for name, each in expected.items()}
    assert value(server, "HandlerMethodTime") == 9.5
    assert value(server, "ExamplePercentMetric_sum") == 50
    assert families(scrape(server))["ExamplePercentMetric"] == "histogram"


@check("metrics", 16)
def test_a_metric_with_other_labels_than_defined_is_dropped(server: ContractServer, model: str) -> None:
    """Nothing but a line of the log tells; the request does not suffer."""
    await_value(server, 1, "PostprocessCallCount")
    assert samples(scrape(server), "SizeOfImage") == []


@check("metrics", 15)
def test_undefined_metrics_are_detected(server: ContractServer, model: str) -> None:
    """At the first update, which is told in the log."""
    await_value(server, 1, "InferenceRequestCount", Hostname=HOST)
    assert families(scrape(server))["InferenceRequestCount"] == "counter"
    pattern = r"Registering auto detected backend metric: InferenceRequestCount\.Count:1\S*\|#\|#hostname:\S+"
    eventually(lambda: re.search(pattern, server.log("ts_log.log")))


@check("metrics", 17)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_printed_metrics(server: ContractServer, model: str, stream: str) -> None:
    """From either stream, with the host that they name."""
    name = f"Raw_{stream}"
    for prefix in ("", "INFO > "):
        line = f"{prefix}[METRICS]{name}.Count:2|#Level:Model|#type:COUNTER|#hostname:h,1700000000"
        server.request("POST", f"/predictions/{model}", json={"do": "print", "stream": stream, "line": line})
    await_value(server, 4, name, Level="Model", Hostname="h")


@check("metrics", 17)
def test_a_blank_in_front_makes_it_a_log_line(server: ContractServer, model: str) -> None:
    line = " [METRICS]Blank.Count:1|#Level:Model|#type:COUNTER|#hostname:h,1700000000"
    server.request("POST", f"/predictions/{model}", json={"do": "print", "stream": "stdout", "line": line})
    eventually(lambda: "[METRICS]Blank.Count" in server.log("model_log.log"))
    assert "Blank" not in families(scrape(server))


@check("metrics", 17)
def test_a_line_that_is_no_metric(server: ContractServer, model: str) -> None:
    """Is an error in the log of the server."""
    line = "[METRICS]No.Count:many|#Level:Model|#hostname:h,1700000000"
    server.request("POST", f"/predictions/{model}", json={"do": "print", "stream": "stdout", "line": line})
    eventually(lambda: f'Failed to parse metrics line: "{line}".' in server.log("ts_log.log"))


@check("metrics", 17)
@fixed("metric syntax")
def test_odd_numbers_and_units(server: ContractServer, model: str) -> None:
    for text, unit in (("1e+20", "km/h"), ("+2E0", "MB/s"), ("inf", "%")):
        line = f"[METRICS]Odd.{unit}:{text}|#Level:{text[1:]}|#type:GAUGE|#hostname:h,1700000000"
        server.request("POST", f"/predictions/{model}", json={"do": "print", "stream": "stdout", "line": line})
    await_value(server, 1e20, "Odd", Level="e+20")
    await_value(server, float("inf"), "Odd", Level="nf")


@check("metrics", 16)
@fixed("label values")
def test_values_of_labels_with_separators(server: ContractServer, model: str) -> None:
    """Colons and commas, which separate labels in printed lines."""
    text = "a:b,c|d"
    order = {"do": "count", "name": "Separated", "value": 1, "dimensions": {"Place": text}}
    server.request("POST", f"/predictions/{model}", json=order)
    await_value(server, 1, "Separated", Place=text)


@check("metrics", 16)
@fixed("api errors")
def test_errors_of_the_metrics_api_are_told_once(server: ContractServer, model: str) -> None:
    order = {"do": "count", "name": "Falling", "value": -1}
    assert server.request("POST", f"/predictions/{model}", json=order).status_code == 200
    text = "Failed to update metric with name:Falling"
    lines = [line for line in server.logs("ts_log.log", text).splitlines() if text in line]
    assert len(lines) == 1
    assert "Failed to parse" not in lines[0]


@check("metrics", 8)
@fixed("histograms by name")
def test_the_name_of_a_histogram_selects_its_samples(server: ContractServer, model: str) -> None:
    text = scrape(server, "?name[]=QueueTime")
    assert families(text) == {"QueueTime": "histogram"}
    assert {name for name in ("bucket", "count", "sum") if samples(text, f"QueueTime_{name}")} == {
        "bucket",
        "count",
        "sum",
    }


@check("metrics", 8)
def test_samples_of_histograms_by_name(server: ContractServer, model: str) -> None:
    text = scrape(server, "?name[]=QueueTime_sum")
    assert families(text) == {"QueueTime": "histogram"}
    assert [line.partition("{")[0] for line in text.splitlines() if not line.startswith("#")] == ["QueueTime_sum"]


@check("metrics", 19)
def test_a_command_for_system_metrics(server: ContractServer, model: str) -> None:
    """It gets the pids of the workers, and tells their memory; only what is defined counts."""
    (worker,) = server.ready(model)
    eventually(lambda: [each["memoryUsage"] for each in server.workers(model)] == [worker["pid"] * 1000])
    text = scrape(server)
    assert [number for _, number in samples(text, "CPUUtilization")] == [42.5]
    assert [(found["Level"], found["Place"]) for found, _ in samples(text, "FromScript")] == [("Host", "here")]
    assert "NotDefined" not in text


@check("metrics", 25)
def test_counters_go_on_after_a_crash(server: ContractServer) -> None:
    """Custom ones too: they are the server's, not the worker's."""
    with metered(server, "dying") as name:
        server.predict(name)
        await_value(server, 1, "PreprocessCallCount", ModelName=name)
        assert server.request("POST", f"/predictions/{name}", json={"do": "exit"}).status_code == 500
        eventually(lambda: server.ready_workers(name))
        before = value(server, "PreprocessCallCount", ModelName=name)
        assert before >= 1
        assert server.predict(name).status_code == 200
        await_value(server, before + 1, "PreprocessCallCount", ModelName=name)


StartServer = Callable[..., ContractServer]


@check("metrics", 12)
def test_legacy_mode(start_server: StartServer) -> None:
    """Three counters are exposed, everything else is logged."""
    server = start_server(config={"metrics_mode": " LEG acy", "disable_system_metrics": "true"})
    counters = {f"ts_{name}" for name in ("inference_requests_total", "inference_latency_microseconds")}
    counters |= {"ts_queue_latency_microseconds"}
    with metered(server) as model:
        server.predict(model)
        eventually(lambda: "WorkerThreadTime" in server.log("ts_metrics.log").split("WorkerLoadTime")[-1])
        assert families(scrape(server)) == dict.fromkeys(counters, "counter")
        assert value(server, "ts_inference_requests_total", model_name=model) == 1
        names = set(metric_names(server, "ts_metrics.log"))
        assert {"Requests2XX", "QueueTime", "WorkerThreadTime", "WorkerLoadTime"} <= names
        assert not names & counters
        eventually(lambda: "PredictionTime" in metric_names(server, "model_metrics.log"))
    assert "Metrics mode: LEGACY" in server.output


@check("metrics", 20)
@check("metrics", 22)
def test_missing_definitions_and_an_unknown_mode(start_server: StartServer) -> None:
    """Are told; the server starts. `metrics_format` of old configurations means nothing."""
    keys = {"metrics_config": "nosuch.yaml", "metrics_mode": "bogus", "metrics_format": "prometheus"}
    server = start_server(config={**keys, "enable_metrics_api": "true"})
    assert 'Configured metrics mode "bogus" not supported. Defaulting to "LOG" mode: ' in server.output
    assert "Metrics mode: LOG" in server.output
    assert "Failed to load metrics configuration: " in server.log("ts_log.log")
    assert scrape(server) == ""
    assert server.ping() == 200


@check("metrics", 22)
@fixed("broken definitions")
def test_models_are_served_without_good_definitions(start_server: StartServer, tmp_path: Path) -> None:
    """What cannot be read is taken from the default definitions; keys that mean nothing are told."""
    own = "mode: prometheus\nts_metrics:\n  counter:\n    - {name: Requests2XX, unit: Count}\n"
    (tmp_path / "own.yaml").write_text(own)
    server = start_server(config={"metrics_mode": "prometheus", "metrics_config": tmp_path / "own.yaml"})
    with metered(server) as model:
        assert server.predict(model).status_code == 200
    assert value(server, "Requests2XX", Level="Host", Hostname=HOST) >= 2
    log = server.log("ts_log.log")
    assert "Failed to load metrics configuration: Metric dimensions must be a list of names. name: Requests2XX" in log
    assert "Unknown key in metrics configuration: mode" in log


@check("metrics", 22)
@fixed("shifted labels")
def test_wrong_numbers_of_labels_are_not_logged_as_others(start_server: StartServer, tmp_path: Path) -> None:
    own = "ts_metrics:\n  counter:\n    - {name: Requests2XX, unit: Count, dimensions: [Hostname]}\nmodel_metrics: {}\n"
    (tmp_path / "own.yaml").write_text(own)
    server = start_server(config={"metrics_config": tmp_path / "own.yaml"})
    assert server.ping() == 200
    text = "Failed to update frontend metric Requests2XX: Incorrect number of labels."
    eventually(lambda: text in server.log("ts_log.log"))
    assert messages(server, "ts_metrics.log") == []
