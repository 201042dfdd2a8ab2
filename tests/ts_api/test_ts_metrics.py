"""The metrics API of handlers: kinds, units, labels, errors, and where updates go."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import ts
from modelserver.wire.frames import Metric as Update
from ts.metrics import metric_cache_errors as errors
from ts.metrics.caching_metric import CachingMetric
from ts.metrics.dimension import Dimension
from ts.metrics.metric import Metric
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.metrics.metric_type_enum import MetricTypes
from ts.metrics.unit import Units
from ts.service import emit_metrics

DEFINITIONS = Path(ts.__file__).with_name("configs") / "metrics.yaml"


@pytest.fixture
def updates() -> list[Update]:
    return []


@pytest.fixture
def metrics(updates: list[Update]) -> MetricsCacheYamlImpl:
    made = MetricsCacheYamlImpl(DEFINITIONS, updates.append)
    made.initialize_cache()
    made.model_name = "m"
    made.set_request_ids({0: "a", 1: "b"})
    return made


def only(updates: list[Update]) -> tuple[Any, ...]:
    (update,) = updates
    labels = ",".join(":".join(pair) for pair in update.dimensions)
    return update.name, update.unit, update.value, labels, update.type, update.request_ids


MODEL = "ModelName:m,Level:Model"


@pytest.mark.parametrize(
    ("method", "arguments", "unit", "kind", "ids"),
    [
        ("add_counter", (2,), "Count", "COUNTER", "a,b"),
        ("add_counter", (2, 1), "Count", "COUNTER", "b"),
        ("add_counter", (2, 9), "Count", "COUNTER", "a,b"),
        ("add_time", (2,), "Milliseconds", "GAUGE", "a,b"),
        ("add_time", (2, 0, "s"), "Seconds", "GAUGE", "a"),
        ("add_time", (2, None, "ms", None, MetricTypes.HISTOGRAM), "Milliseconds", "HISTOGRAM", "a,b"),
        ("add_size", (2,), "Megabytes", "GAUGE", "a,b"),
        ("add_size", (2, None, "kB"), "Kilobytes", "GAUGE", "a,b"),
        ("add_size", (2, None, "GB"), "Gigabytes", "GAUGE", "a,b"),
        ("add_size", (2, None, "B"), "Bytes", "GAUGE", "a,b"),
        ("add_percent", (2,), "Percent", "GAUGE", "a,b"),
        ("add_metric", (2, "frogs"), "frogs", "COUNTER", "a,b"),
        ("add_metric", (2, "", 1, [], MetricTypes.GAUGE), "unit", "GAUGE", "b"),
    ],
)
def test_kinds_and_units(
    metrics: MetricsCacheYamlImpl,
    updates: list[Update],
    method: str,
    arguments: tuple[Any, ...],
    unit: str,
    kind: str,
    ids: str,
) -> None:
    getattr(metrics, method)("N", *arguments)
    assert only(updates) == ("N", unit, 2.0, MODEL, kind, ids)


def test_errors_belong_to_no_request(metrics: MetricsCacheYamlImpl, updates: list[Update]) -> None:
    metrics.add_error("Oops", 1)
    assert only(updates) == ("Oops", "unit", 1.0, "Level:Error", "COUNTER", "")


def test_labels_of_the_caller_come_first_and_stay_as_they_are(
    metrics: MetricsCacheYamlImpl, updates: list[Update]
) -> None:
    labels = [Dimension("Kind", "x"), Dimension("ModelName", "mine")]
    metrics.add_counter("N", 1, dimensions=labels)
    assert [label.name for label in labels] == ["Kind", "ModelName"]
    metrics.add_counter("Other", 1)
    assert [update.dimensions for update in updates] == [
        [("Kind", "x"), ("ModelName", "mine"), ("Level", "Model")],
        [("ModelName", "m"), ("Level", "Model")],
    ]


def test_the_first_use_fixes_the_label_names(metrics: MetricsCacheYamlImpl, updates: list[Update]) -> None:
    metrics.add_counter("N", 1, dimensions=[Dimension("A", "1")])
    metrics.add_counter("N", 1, dimensions=[Dimension("B", "2")])
    assert updates[1].dimensions[0] == ("A", "2")


def test_without_requests(metrics: MetricsCacheYamlImpl, updates: list[Update]) -> None:
    metrics.set_request_ids(None)
    metrics.add_counter("N", 1)
    assert only(updates) == ("N", "Count", 1.0, "Level:Error", "COUNTER", "")


def test_while_the_model_loads(metrics: MetricsCacheYamlImpl, updates: list[Update]) -> None:
    metrics.set_request_ids("5e0c")
    metrics.add_counter("N", 1, 0)
    assert only(updates)[-1] == "5e0c"


@pytest.mark.parametrize(
    ("values", "value", "reason"),
    [
        ([], 1, "Dimension values: [] should correspond to Dimension names: ['A']"),
        (["x"], -1, "Counter metric update value cannot be negative"),
        (["x"], "many", "value must be a number"),
    ],
)
def test_updates_that_do_not_fit_are_logged_and_dropped(
    metrics: MetricsCacheYamlImpl,
    updates: list[Update],
    caplog: pytest.LogCaptureFixture,
    values: list[str],
    value: Any,
    reason: str,
) -> None:
    metric = metrics.add_metric_to_cache("N", "count", ["A"])
    metric.add_or_update(value, values)
    labels = "A:x" if values else ""
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    text = f"Failed to update metric with name:N and dimensions: {labels} with value: {value}: {reason}"
    assert record.getMessage() == text
    assert updates == []


def test_gauges_may_be_negative(metrics: MetricsCacheYamlImpl, updates: list[Update]) -> None:
    metrics.add_percent("N", -1)
    assert updates[0].value == -1.0


@pytest.mark.parametrize(
    ("method", "arguments", "error", "text"),
    [
        ("add_time", ("N", 1, None, "h"), errors.MetricsCacheValueError, r"should be one of \['ms', 's'\]"),
        ("add_size", ("N", 1, None, "TB"), ValueError, r"is one of \['MB','kB', 'GB', 'B'\]"),
        ("add_metric_to_cache", (1, "ms"), errors.MetricsCacheTypeError, "`metric_name` must be a str"),
        ("add_metric_to_cache", ("N", 1), errors.MetricsCacheTypeError, "`unit` must be a str"),
        ("add_metric_to_cache", ("N", "ms", "A"), errors.MetricsCacheTypeError, "`dimension_names` should be a list"),
        ("add_metric_to_cache", ("N", "ms", [1]), errors.MetricsCacheTypeError, "`dimension_names` should be a list"),
        ("add_metric_to_cache", ("N", "ms", [], "counter"), errors.MetricsCacheTypeError, "`metric_type` must be a"),
        ("add_counter", (None, 1), errors.MetricsCacheTypeError, "`metric_name` must be a str"),
        ("get_metric", (1,), errors.MetricsCacheTypeError, "`metric_name` must be a str"),
        ("get_metric", ("N", "gauge"), errors.MetricsCacheTypeError, "`metric_type` must be a MetricTypes enum"),
    ],
)
def test_wrong_arguments(
    metrics: MetricsCacheYamlImpl, method: str, arguments: tuple[Any, ...], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        getattr(metrics, method)(*arguments)


def test_get_metric(metrics: MetricsCacheYamlImpl) -> None:
    assert metrics.get_metric("HandlerTime", MetricTypes.GAUGE).unit == "Milliseconds"
    with pytest.raises(errors.MetricsCacheKeyError) as caught:
        metrics.get_metric("NoSuch", MetricTypes.GAUGE)
    assert str(caught.value) == "\"Metric of type 'MetricTypes.GAUGE' and name 'NoSuch' doesn't exist\""


def test_a_metric_may_be_replaced(metrics: MetricsCacheYamlImpl, caplog: pytest.LogCaptureFixture) -> None:
    first = metrics.add_metric_to_cache("N", "count")
    assert metrics.add_metric_to_cache("N", "ms") is not first
    assert caplog.messages == ["Overriding existing key MetricTypes.COUNTER:N"]
    assert metrics.get_metric("N").unit == "Milliseconds"


def test_update_replaces_the_label_names(
    metrics: MetricsCacheYamlImpl, updates: list[Update], caplog: pytest.LogCaptureFixture
) -> None:
    metric = metrics.add_metric_to_cache("N", "count", ["A"])
    metric.update(1, "r", [Dimension("B", "1"), Dimension("C", "2")])
    metric.add_or_update(1, ["3", "4"])
    assert caplog.messages == ["Overriding existing dimensions"]
    assert [update.dimensions for update in updates] == [[("B", "1"), ("C", "2")], [("B", "3"), ("C", "4")]]


def test_keys_of_the_default_file(metrics: MetricsCacheYamlImpl) -> None:
    assert metrics.cache_keys() == ["gauge:HandlerTime", "gauge:PredictionTime"]


def test_the_default_file() -> None:
    content = yaml.safe_load(DEFINITIONS.read_text())
    assert set(content) == {"dimensions", "ts_metrics", "model_metrics"}
    server = {kind: [spec["name"] for spec in specs] for kind, specs in content["ts_metrics"].items()}
    assert {kind: len(names) for kind, names in server.items()} == {"counter": 6, "gauge": 13}
    gpu = next(spec for spec in content["ts_metrics"]["gauge"] if spec["name"] == "GPUUtilization")
    assert gpu == {"name": "GPUUtilization", "unit": "Percent", "dimensions": ["Level", "DeviceId", "Hostname"]}


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        ("ts_metrics: {}", errors.MetricsCacheKeyError, "'model_metrics' key not found in yaml file: 'model_metrics'"),
        ("", errors.MetricsCacheKeyError, "'model_metrics' key not found"),
        ("model_metrics:", errors.MetricsCacheValueError, "Missing `model_metrics` specification"),
        ("model_metrics: [1]", errors.MetricsCacheValueError, "Missing `model_metrics` specification"),
        ("model_metrics: {summary: []}", errors.MetricsCacheKeyError, "Invalid metric type: "),
        (
            "model_metrics: {gauge: [{name: a, dimensions: []}]}",
            errors.MetricsCacheKeyError,
            "Key not found in cache spec: 'unit'",
        ),
        ("model_metrics: {gauge: [a]}", errors.MetricsCacheKeyError, "Key not found in cache spec: "),
    ],
)
def test_faulty_definitions(tmp_path: Path, content: str, error: type[Exception], text: str) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(content)
    with pytest.raises(error, match=re.escape(text)):
        MetricsCacheYamlImpl(path).initialize_cache()


def test_unreadable_definitions(tmp_path: Path) -> None:
    path = tmp_path / "metrics.yaml"
    text = f"Error reading file: Error reading file {path}: [Errno 2] No such file or directory: '{path}'"
    with pytest.raises(errors.MetricsCacheIOError, match=re.escape(text)):
        MetricsCacheYamlImpl(path)
    path.write_text("a: [1")
    with pytest.raises(errors.MetricsCachePyYamlError, match="Error parsing file: Error parsing file "):
        MetricsCacheYamlImpl(path)
    text = "stat: path should be string, bytes, os.PathLike or integer, not NoneType"
    with pytest.raises(errors.MetricsCacheTypeError, match=text):
        MetricsCacheYamlImpl(None)  # type: ignore[arg-type]


def test_errors_are_those_of_their_kind() -> None:
    assert issubclass(errors.MetricsCacheIOError, IOError)
    assert issubclass(errors.MetricsCachePyYamlError, yaml.YAMLError)
    assert issubclass(errors.MetricsCacheTypeError, TypeError)
    assert issubclass(errors.MetricsCacheValueError, ValueError)
    assert issubclass(errors.MetricsCacheKeyError, KeyError)
    assert str(errors.GeneralMetricsCacheError("x")) == "Generic error: x"


HOST = r"#hostname:[^,]+,\d+"


def test_without_an_outlet_updates_are_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    made = MetricsCacheYamlImpl(DEFINITIONS)
    made.model_name = "m"
    made.set_request_ids({0: "a"})
    with caplog.at_level(logging.INFO):
        made.add_counter("C", 2, dimensions=[Dimension("K", "x")])
        made.add_metric_to_cache("Bare", "count").add_or_update(1, [])
        CachingMetric("G", "ms", ["A"], MetricTypes.GAUGE).add_or_update(9.3, ["x"], "r")
    patterns = [
        rf"\[METRICS\]C\.Count:2\|#K:x,ModelName:m,Level:Model\|#type:COUNTER\|{HOST},a",
        rf"\[METRICS\]Bare\.Count:1\|#\|#type:COUNTER\|{HOST}",
        rf"\[METRICS\]G\.Milliseconds:9\.3\|#A:x\|#type:GAUGE\|{HOST},r",
    ]
    assert len(caplog.messages) == len(patterns)
    for pattern, line in zip(patterns, caplog.messages, strict=True):
        assert re.fullmatch(pattern, line)


def test_the_small_classes() -> None:
    label = Dimension("A", "x")
    assert (label.name, label.value, str(label), label.to_dict()) == ("A", "x", "A:x", {"Name": "A", "Value": "x"})
    assert [(kind.name, kind.value) for kind in MetricTypes] == [
        ("COUNTER", "counter"),
        ("GAUGE", "gauge"),
        ("HISTOGRAM", "histogram"),
    ]
    units = Units().units
    assert (units["ms"], units["B"], units[""], units[None]) == ("Milliseconds", "Bytes", "unit", "unit")


def test_self_formatting_metric(caplog: pytest.LogCaptureFixture) -> None:
    counter = Metric("N", 1, "ms", [Dimension("A", "x")], "r", "counter")
    counter.update(2)
    assert re.fullmatch(rf"N\.Milliseconds:3\|#A:x\|{HOST},r", str(counter))
    gauge = Metric("N", 1, "", [])
    gauge.update(2)
    assert re.fullmatch(rf"N\.unit:2\|#\|{HOST}", str(gauge))
    gauge.reset()
    assert gauge.to_dict()["Value"] == 0
    with caplog.at_level(logging.INFO):
        emit_metrics([counter])
    assert re.fullmatch(rf"\[METRICS\]N\.Milliseconds:3\|#A:x\|{HOST},r", caplog.messages[0])
