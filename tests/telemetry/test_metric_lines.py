"""Metric lines that handlers print."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telemetry_served import DATE, WORKER, Served

from modelserver.telemetry.metric_lines import PrintedMetric, parse
from modelserver.wire.frames import Metric

LEVEL = [("ModelName", "probe"), ("Level", "Model")]


@pytest.mark.parametrize(
    ("line", "metric"),
    [
        (
            "[METRICS]A.Count:2|#ModelName:probe,Level:Model|#type:COUNTER|#hostname:node1,1795159357,id-1,id-2",
            PrintedMetric("A", 2.0, LEVEL, "node1", "id-1,id-2", "Count", "COUNTER"),
        ),
        (
            "INFO > [METRICS]RawCpp.Count:1|#Level:Model|#type:COUNTER|#hostname:h,1700000000",
            PrintedMetric("RawCpp", 1.0, [("Level", "Model")], "h", "", "Count", "COUNTER"),
        ),
        ("[METRICS] A.ms:0.5|#|#hostname:h,1", PrintedMetric("A", 0.5, [], "h", unit="ms")),
        ("[METRICS]Name Space.ms:-1|#|#hostname:h,1", PrintedMetric("Name Space", -1.0, [], "h", unit="ms")),
        ("[METRICS]Name-Dash.MB/s:1e+20|#|#hostname:h,1", PrintedMetric("Name-Dash", 1e20, [], "h", unit="MB/s")),
        ("[METRICS]A.%:inf|#|#hostname:h,1", PrintedMetric("A", float("inf"), [], "h", unit="%")),
        (
            "[METRICS]A.ms:1|#a:x,y,b:,c:1:2,d:z|#hostname:h,1",
            PrintedMetric("A", 1.0, [("a", "x"), ("d", "z")], "h", unit="ms"),
        ),
    ],
)
def test_accepted(line: str, metric: PrintedMetric) -> None:
    assert parse(line) == metric


@pytest.mark.parametrize(
    "line",
    [
        "[METRICS]",
        "[METRICS]A:1|#|#hostname:h,1",
        "[METRICS]A.ms:one|#|#hostname:h,1",
        "[METRICS]A.ms:1_000|#|#hostname:h,1",
        "[METRICS]A.ms:1|#a:x|y|#hostname:h,1",
        "[METRICS]A.ms:1|#|#hostname:h",
        "[METRICS]A.ms:1",
        "[METRICS]Failed to update metric with name:a.b:1|#|#hostname:h,1",
    ],
)
def test_refused(line: str) -> None:
    assert parse(line) is None


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    parse("[METRICS]" + text)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_printed_metric_updates_and_is_no_model_output(tmp_path: Path, stream: str) -> None:
    line = (
        "[METRICS]PredictionTime.Milliseconds:9.3|#ModelName:probe,Level:Model|#type:GAUGE|#hostname:h,1700000000,id-1"
    )
    with Served(tmp_path) as served:
        served.telemetry.printed(WORKER, stream, line)
        message = "PredictionTime.ms:9.3|#ModelName:probe,Level:Model|#hostname:h,requestID:id-1,timestamp:1795176000"
        assert served.stdout() == [f"{DATE},000 [INFO ] {WORKER}-{stream} MODEL_METRICS - {message}"]
        assert served.file("model_metrics") == [f"{DATE},000 - {message}"]
        assert served.file("model_log") == []


def test_printed_metric_keeps_its_host_name(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS") as served:
        line = "[METRICS]PredictionTime.ms:9.3|#ModelName:probe,Level:Model|#hostname:h,1700000000"
        served.telemetry.printed(WORKER, "stdout", line)
        assert 'PredictionTime{ModelName="probe",Level="Model",Hostname="h",} 9.3' in served.scrape()


def test_updates_of_one_name_keep_their_dimensions_apart(tmp_path: Path) -> None:
    def update(model: str) -> Metric:
        return Metric("PredictionTime", "ms", 1.5, [("ModelName", model), ("Level", "Model")], "GAUGE", "a")

    with Served(tmp_path) as served:
        served.batch("a", metrics=[update("x"), update("x"), update("y"), update("x")])
        served.telemetry.worker_metrics(WORKER, "probe", [update("z")])
        models = [line.partition("ModelName:")[2][0] for line in served.file("model_metrics")]
        assert models == ["x", "x", "y", "x", "z"]


def test_unreadable_metric_line_is_told(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.printed(WORKER, "stdout", "[METRICS]nonsense")
        logger = "org.pytorch.serve.wlm.WorkerLifeCycle"
        text = 'Failed to parse metrics line: "[METRICS]nonsense".'
        assert served.stdout() == [f"{DATE},000 [ERROR] {WORKER}-stdout {logger} - {text}"]
        assert served.file("model_log") == []


def test_error_of_the_metrics_api_is_told_once_as_it_is(tmp_path: Path) -> None:
    text = "Failed to update metric with name:n and dimensions: d with value: -1: it is negative"
    with Served(tmp_path) as served:
        served.telemetry.printed(WORKER, "stdout", f"[METRICS]{text}")
        (line,) = served.stdout()
        assert line.endswith(f"ERROR] {WORKER}-stdout org.pytorch.serve.wlm.WorkerLifeCycle - {text}")
