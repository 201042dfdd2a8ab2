"""Where metrics go in the three modes, and the exposition text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from telemetry_served import WORKER, Served, prediction_time

from modelserver.errors import ConfigurationError
from modelserver.telemetry.definitions import BUCKETS, HISTOGRAM, Definition
from modelserver.telemetry.exposition import render
from modelserver.telemetry.families import Family
from modelserver.wire.frames import Metric

SAMPLE = re.compile(r'^[A-Za-z_:][\w:]*(\{([A-Za-z_]\w*="[^"]*",)+\})? \S+$')
HEAD = """
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [lvl, host]}
"""


def definitions(path: Path, text: str) -> Path:
    """A metric definition file."""
    file = path / "metrics.yaml"
    file.write_text(text)
    return file


def families(text: str) -> list[str]:
    """Names of the families in an exposition text, sorted."""
    return sorted(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def test_log_mode_exposes_nothing(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.predict()
        assert served.scrape() == ""


def test_prometheus_mode_shows_all_families_before_any_sample(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS") as served:
        text = served.scrape()
        assert len(families(text)) == 21
        assert len(text.splitlines()) == 42
        assert (
            "# HELP WorkerLoadTime Torchserve prometheus gauge metric with unit: Milliseconds\n"
            "# TYPE WorkerLoadTime gauge\n" in text
        )


def test_prometheus_mode_after_predictions(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS") as served:
        served.batch("a", metrics=[prediction_time("a")])
        served.predict("a")
        served.batch("b", metrics=[prediction_time("b", 12583.294)])
        served.predict("b", label="1.0")
        served.predict("c", status=503, ok=False)
        served.telemetry.worker_loaded(WORKER, 2120.5)
        samples = sorted(line for line in served.scrape().splitlines() if not line.startswith("#"))
        assert samples == [
            'PredictionTime{ModelName="probe",Level="Model",Hostname="node1",} 12583.294',
            'QueueTime{Level="Host",Hostname="node1",} 125.0',
            'Requests2XX{Level="Host",Hostname="node1",} 2.0',
            'Requests5XX{Level="Host",Hostname="node1",} 1.0',
            f'WorkerLoadTime{{WorkerName="{WORKER}",Level="Host",Hostname="node1",}} 2120.0',
            'WorkerThreadTime{Level="Host",Hostname="node1",} 0.0',  # of the load
            'ts_inference_latency_microseconds{model_name="probe",model_version="1.0",hostname="node1",} 187500.0',
            'ts_inference_latency_microseconds{model_name="probe",model_version="default",hostname="node1",} 187500.0',
            'ts_inference_requests_total{model_name="probe",model_version="1.0",hostname="node1",} 1.0',
            'ts_inference_requests_total{model_name="probe",model_version="default",hostname="node1",} 2.0',
            'ts_queue_latency_microseconds{model_name="probe",model_version="1.0",hostname="node1",} 125000.0',
            'ts_queue_latency_microseconds{model_name="probe",model_version="default",hostname="node1",} 125000.0',
        ]
        assert all(SAMPLE.match(sample) for sample in samples)


def test_prometheus_mode_leaves_the_metric_logs_empty(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS") as served:
        served.batch("a", metrics=[prediction_time("a")])
        served.predict("a")
        assert served.file("ts_metrics") == served.file("model_metrics") == []
        assert len(served.file("access_log")) == len(served.file("model_log")) == 1


def test_legacy_mode_exposes_three_counters_and_logs_the_rest(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="LEGACY") as served:
        served.batch("a", metrics=[prediction_time("a")])
        served.predict("a")
        text = served.scrape()
        assert families(text) == [
            "ts_inference_latency_microseconds",
            "ts_inference_requests_total",
            "ts_queue_latency_microseconds",
        ]
        assert 'ts_inference_requests_total{model_name="probe",model_version="default",hostname="node1",} 1.0\n' in text
        names = [line.split(" - ")[1].split(".")[0] for line in served.file("ts_metrics")]
        assert names == ["Requests2XX", "QueueTime", "WorkerThreadTime"]
        assert len(served.file("model_metrics")) == 1


def test_legacy_counters_are_counters_whatever_the_file_says(tmp_path: Path) -> None:
    spec = "{name: ts_inference_requests_total, unit: Count, dimensions: [m, v, h]}"
    config = definitions(tmp_path, f"ts_metrics:\n  gauge:\n    - {spec}\n")
    with Served(tmp_path, metrics_mode="LEGACY", metrics_config=config) as served:
        served.predict("a")
        served.predict("b")
        assert 'ts_inference_requests_total{m="probe",v="default",h="node1",} 2.0' in served.scrape()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["Requests2XX"], ["Requests2XX"]),
        (["Requests2XX", "QueueTime"], ["QueueTime", "Requests2XX"]),
        (["nosuch"], []),
        ([""], []),
        (["Requests2XX,QueueTime"], []),
        (["Requests4XX"], []),  # no samples yet
    ],
)
def test_filter_by_name(tmp_path: Path, names: list[str], found: list[str]) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS") as served:
        served.predict()
        assert families(served.scrape(*names)) == found


def test_histogram_by_family_or_by_sample() -> None:
    family = Family(Definition("H", HISTOGRAM, "ms", ("a",), (0.5, 2.5)))
    for value in (0.5, 0.6, 7.0):
        family.child(("x",)).update(value)
    everything = (
        "# HELP H Torchserve prometheus histogram metric with unit: ms\n# TYPE H histogram\n"
        'H_bucket{a="x",le="0.5",} 1.0\nH_bucket{a="x",le="2.5",} 2.0\nH_bucket{a="x",le="+Inf",} 3.0\n'
        'H_count{a="x",} 3.0\nH_sum{a="x",} 8.1\n'
    )
    assert render([family]) == everything
    assert render([family], ["H"]) == everything
    assert render([family], ["H_sum"]).splitlines()[2:] == ['H_sum{a="x",} 8.1']
    assert render([family], ["H_total"]) == ""


def test_default_buckets(tmp_path: Path) -> None:
    spec = "{name: QueueTime, unit: Milliseconds, dimensions: [l, h]}"
    config = definitions(tmp_path, f"ts_metrics:\n  histogram:\n    - {spec}\n")
    with Served(tmp_path, metrics_mode="PROMETHEUS", metrics_config=config) as served:
        served.predict()
        served.predict()
        text = served.scrape()
    bounds = re.findall(r'QueueTime_bucket{l="Host",h="node1",le="([^"]+)",}', text)
    assert bounds == [*map(str, BUCKETS), "+Inf"]
    assert 'QueueTime_count{l="Host",h="node1",} 2.0\nQueueTime_sum{l="Host",h="node1",} 250.0\n' in text


def test_family_without_labels_is_exposed_at_once(tmp_path: Path) -> None:
    config = definitions(tmp_path, "ts_metrics:\n  counter:\n    - {name: MyOwn, unit: Count, dimensions: []}\n")
    with Served(tmp_path, metrics_mode="PROMETHEUS", metrics_config=config) as served:
        assert served.scrape().splitlines()[2:] == ["MyOwn 0.0"]


def test_type_and_labels_of_the_file_win(tmp_path: Path) -> None:
    text = HEAD + "model_metrics:\n  counter:\n    - {name: HandlerTime, unit: ms, dimensions: [m, l]}\n"
    with Served(tmp_path, metrics_mode="PROMETHEUS", metrics_config=definitions(tmp_path, text)) as served:
        update = Metric("HandlerTime", "Milliseconds", 1.5, [("ModelName", "p"), ("Level", "Model")], "GAUGE", "a")
        served.batch("a", metrics=[update, update])
        served.predict("a")
        samples = [line for line in served.scrape().splitlines() if not line.startswith("#")]
        assert samples == [
            'Requests2XX{lvl="Host",host="node1",} 1.0',
            'HandlerTime{m="p",l="Model",Hostname="node1",} 3.0',
        ]


def test_unit_of_the_file_wins_in_the_log(tmp_path: Path) -> None:
    text = "model_metrics:\n  gauge:\n    - {name: HandlerTime, unit: ms, dimensions: []}\n"
    with Served(tmp_path, metrics_config=definitions(tmp_path, text)) as served:
        served.telemetry.worker_metrics(WORKER, "p", [Metric("HandlerTime", "Milliseconds", 1e-7, [], "GAUGE", "")])
        assert served.file("model_metrics")[0].endswith(
            " - HandlerTime.ms:1.0E-7|#|#hostname:node1,requestID:null,timestamp:1795176000"
        )


def test_undefined_metrics_are_dropped_in_silence(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_config=definitions(tmp_path, HEAD)) as served:
        served.batch("a", metrics=[prediction_time("a")])
        served.predict("a")
        served.telemetry.worker_loaded(WORKER, 1.0)
        assert [line.split(" - ")[1].split(".")[0] for line in served.file("ts_metrics")] == ["Requests2XX"]
        assert served.file("model_metrics") == []
        assert not any("ERROR" in line for line in served.stdout())


@pytest.mark.parametrize("mode", ["LOG", "PROMETHEUS"])
def test_wrong_number_of_labels_is_told_once_and_dropped(tmp_path: Path, mode: str) -> None:
    text = """
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [host]}
model_metrics:
  gauge:
    - {name: PredictionTime, unit: ms, dimensions: [a, b, c]}
"""
    with Served(tmp_path, metrics_mode=mode, metrics_config=definitions(tmp_path, text)) as served:
        for request_id in ("a", "b"):
            served.batch(request_id, metrics=[prediction_time(request_id)])
            served.predict(request_id)
        errors = [line.partition("ERROR] ")[2] for line in served.stdout() if "ERROR" in line]
        assert errors == [
            f"{WORKER}-stdout org.pytorch.serve.wlm.WorkerLifeCycle - "
            "Failed to update backend metric PredictionTime: Incorrect number of labels.",
            "main org.pytorch.serve.metrics.MetricCache - "
            "Failed to update frontend metric Requests2XX: Incorrect number of labels.",
        ]
        assert served.file("ts_metrics") == served.file("model_metrics") == []
        assert len(served.file("access_log")) == 2


def test_negative_increment_is_refused(tmp_path: Path) -> None:
    text = "model_metrics:\n  counter:\n    - {name: C, unit: Count, dimensions: []}\n"
    with Served(tmp_path, metrics_mode="PROMETHEUS", metrics_config=definitions(tmp_path, text)) as served:
        updates = [Metric("C", "Count", value, [], "COUNTER", "") for value in (2.0, -1.0, 3.0)]
        served.telemetry.worker_metrics(WORKER, "p", updates)
        assert served.scrape("C").splitlines()[2:] == ['C{Hostname="node1",} 5.0']
        assert "Failed to update backend metric C: Counter metric update value cannot be negative" in served.stdout()[0]


@pytest.mark.parametrize(
    ("specs", "text"),
    [
        (
            "[{name: A, unit: u, dimensions: [x]}, {name: A, unit: u, dimensions: [x]}]",
            "Collector already registered that provides name: A",
        ),
        ("[{name: A-B, unit: u, dimensions: [x]}]", "Invalid metric name: A-B"),
        ('[{name: A, unit: u, dimensions: ["x y"]}]', "Invalid metric label name: x y"),
    ],
)
def test_names_that_cannot_be_exposed_stop_the_start_in_prometheus_mode(tmp_path: Path, specs: str, text: str) -> None:
    config = definitions(tmp_path, f"ts_metrics:\n  counter: {specs}\n")
    with pytest.raises(ConfigurationError) as caught:
        Served(tmp_path, metrics_mode="PROMETHEUS", metrics_config=config)
    assert str(caught.value) == text
    Served(tmp_path, metrics_config=config).telemetry.close()


def test_a_standard_parser_reads_the_text(tmp_path: Path) -> None:
    text = r"""
model_metrics:
  gauge:
    - {name: Odd, unit: "back\\slash", dimensions: [a]}
  histogram:
    - {name: Spread, unit: s, dimensions: []}
"""
    odd = 'quote " slash \\ line\nfeed'
    with Served(tmp_path, metrics_mode="PROMETHEUS", metrics_config=definitions(tmp_path, text)) as served:
        updates = [Metric("Odd", "u", float("nan"), [("a", odd)], "GAUGE", "")]
        updates += [Metric("Spread", "s", value, [], "HISTOGRAM", "") for value in (0.003, 42.0)]
        served.telemetry.worker_metrics(WORKER, "p", updates)
        parsed = {family.name: family for family in text_string_to_metric_families(served.scrape())}
    (sample,) = parsed["Odd"].samples
    assert sample.labels == {"a": odd, "Hostname": "node1"}
    assert sample.value != sample.value
    assert parsed["Spread"].type == "histogram"
    values = {sample.labels.get("le", sample.name): sample.value for sample in parsed["Spread"].samples}
    assert (values["0.005"], values["10.0"], values["+Inf"], values["Spread_sum"]) == (1.0, 1.0, 2.0, 42.003)
