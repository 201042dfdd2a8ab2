"""Reading metric definitions, the broken ones above all."""

from __future__ import annotations

from pathlib import Path

import pytest
from telemetry_served import Served

from modelserver.settings.table import Settings
from modelserver.telemetry.definitions import BUCKETS, Definition, Definitions, load_definitions

DEFAULT = Settings().metrics_config
GOOD = """
ts_metrics:
  counter:
    - {name: Requests2XX, unit: Count, dimensions: [Level, Hostname]}
model_metrics:
  gauge:
    - {name: HandlerTime, unit: ms, dimensions: [ModelName, Level]}
"""


def load(tmp_path: Path, text: str) -> Definitions:
    """Definitions of a file with this text."""
    path = tmp_path / "metrics.yaml"
    path.write_text(text)
    return load_definitions(path, DEFAULT)


def test_good_file(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD) == Definitions(
        [Definition("Requests2XX", "counter", "Count", ("Level", "Hostname"))],
        [Definition("HandlerTime", "gauge", "ms", ("ModelName", "Level", "Hostname"))],
    )


def test_default_file() -> None:
    found = load_definitions(DEFAULT, DEFAULT)
    assert (len(found.server), len(found.model), found.errors, found.warnings) == (19, 2, [], [])


@pytest.mark.parametrize("text", ["", "[1, 2]", "just text", "ts_metrics: [", "\x00", "a: !!python/object:x {}"])
def test_unusable_file_is_replaced_by_the_defaults(tmp_path: Path, text: str) -> None:
    found = load(tmp_path, text)
    assert (len(found.server), len(found.model), len(found.errors)) == (19, 2, 1)


def test_missing_file_is_replaced_by_the_defaults(tmp_path: Path) -> None:
    found = load_definitions(tmp_path / "nosuch.yaml", DEFAULT)
    assert (len(found.server), len(found.model)) == (19, 2)
    assert "nosuch.yaml" in found.errors[0]


def test_nothing_is_left_when_the_defaults_are_gone_too(tmp_path: Path) -> None:
    found = load_definitions(tmp_path / "nosuch.yaml", tmp_path / "nosuch.yaml")
    assert (found.server, found.model, len(found.errors)) == ([], [], 1)


def test_sections_and_types_are_optional(tmp_path: Path) -> None:
    assert load(tmp_path, "dimensions: [a]\n") == Definitions()
    assert load(tmp_path, "ts_metrics:\nmodel_metrics:\n  gauge:\n  counter: []\n") == Definitions()


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("{unit: u, dimensions: []}", "Metric name cannot be empty. name: null, unit: u, dimensions: []"),
        ('{name: "", unit: u, dimensions: []}', "Metric name cannot be empty. name: , unit: u, dimensions: []"),
        ("{name: X, dimensions: [a, b]}", "Metric unit cannot be empty. name: X, unit: null, dimensions: [a, b]"),
        ("{name: X, unit: u}", "Metric dimensions must be a list of names. name: X, unit: u, dimensions: null"),
        (
            "{name: X, unit: u, dimensions: [], buckets: [a]}",
            "Metric buckets must be a list of numbers. name: X, unit: u, dimensions: []",
        ),
        ("just text", "model_metrics.gauge: not a mapping: just text"),
    ],
)
def test_broken_entry_costs_only_itself(tmp_path: Path, spec: str, text: str) -> None:
    found = load(tmp_path, GOOD + f"    - {spec}\n")
    assert found.errors == [text]
    assert [definition.name for definition in found.model] == ["HandlerTime"]


def test_broken_entry_of_a_default_metric_is_replaced(tmp_path: Path) -> None:
    found = load(tmp_path, "ts_metrics:\n  gauge:\n    - {name: QueueTime, unit: Milliseconds}\n")
    assert found.server == [Definition("QueueTime", "gauge", "Milliseconds", ("Level", "Hostname"))]


def test_broken_sections_are_replaced(tmp_path: Path) -> None:
    found = load(tmp_path, "ts_metrics: {counter: 5}\nmodel_metrics: 7\n")
    assert [definition.name for definition in found.server if definition.type == "counter"] == [
        *("Requests2XX", "Requests4XX", "Requests5XX"),
        *("ts_inference_requests_total", "ts_inference_latency_microseconds", "ts_queue_latency_microseconds"),
    ]
    assert len(found.server) == 6
    assert len(found.model) == 2
    assert found.errors == ["ts_metrics.counter: not a list", "model_metrics: not a mapping"]


def test_unknown_keys_are_only_told(tmp_path: Path) -> None:
    found = load(
        tmp_path, "mode: prometheus\n" + GOOD + "    - {name: X, unit: u, dimensions: [], extra: 1}\n  summary: []\n"
    )
    assert [definition.name for definition in found.model] == ["HandlerTime", "X"]
    assert found.errors == []
    assert len(found.warnings) == 3


def test_buckets_can_be_given(tmp_path: Path) -> None:
    spec = "{name: X, unit: u, dimensions: [], buckets: [10, 2.5, .inf]}"
    found = load(tmp_path, f"model_metrics:\n  histogram:\n    - {spec}\n    - {{name: Y, unit: u, dimensions: []}}\n")
    assert [definition.buckets for definition in found.model] == [(2.5, 10.0), BUCKETS]


def test_outcome_is_logged(tmp_path: Path) -> None:
    with Served(tmp_path / "good") as served:
        served.telemetry.flush()
        line = served.memory.getvalue().decode()
        logger = "[INFO ] main org.pytorch.serve.metrics.configuration.MetricConfiguration"
        assert f"{logger} - Successfully loaded metrics configuration from {DEFAULT}\n" in line
    with Served(tmp_path / "bad", metrics_config=tmp_path / "nosuch.yaml") as served:
        text = "[ERROR] main org.pytorch.serve.metrics.MetricCache - Failed to load metrics configuration: "
        assert text in served.stdout()[0]
