"""Worker metrics that no definition names."""

from __future__ import annotations

from pathlib import Path

import pytest
from telemetry_served import DATE, WORKER, Served

from modelserver.telemetry.catalogue import DETECTED_LIMIT
from modelserver.telemetry.families import SERIES_LIMIT
from modelserver.wire.frames import Metric

REGISTERED = "Registering auto detected backend metric: "


def update(name: str, value: float = 2.0, kind: str = "COUNTER", dimensions: tuple[str, ...] = ("Stage",)) -> Metric:
    """One update with a value for each dimension."""
    return Metric(name, "Count", value, [(each, f"of {each}") for each in dimensions], kind, "id-1")


def report(served: Served, *updates: Metric) -> None:
    served.telemetry.worker_metrics(WORKER, "probe", updates)


def errors(served: Served) -> list[str]:
    """Messages at ERROR."""
    return [line.partition(" - ")[2] for line in served.stdout() if "[ERROR]" in line]


def test_unknown_metrics_are_dropped_where_nobody_asked_for_them(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS") as served:
        report(served, update("Own"))
        assert "Own" not in served.scrape()
        assert served.stdout() == []


def test_first_update_defines_the_metric(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", model_metrics_auto_detect=True) as served:
        report(served, update("Own"), update("Own", 3.0), update("Now", 0.5, "GAUGE", ()))
        assert served.scrape("Own", "Now").splitlines() == [
            "# HELP Own Torchserve prometheus counter metric with unit: Count",
            "# TYPE Own counter",
            'Own{Stage="of Stage",Hostname="node1",} 5.0',
            "# HELP Now Torchserve prometheus gauge metric with unit: Count",
            "# TYPE Now gauge",
            'Now{Hostname="node1",} 0.5',
        ]
        shown = "Own.Count:2.0|#Stage:of Stage|#hostname:node1,requestID:id-1,timestamp:1795176000"
        logger = "org.pytorch.serve.wlm.WorkerLifeCycle"
        assert served.stdout()[0] == f"{DATE},000 [INFO ] {WORKER}-stdout {logger} - {REGISTERED}{shown}"
        assert len([line for line in served.stdout() if REGISTERED in line]) == 2


def test_detected_metrics_are_logged_in_log_mode(tmp_path: Path) -> None:
    with Served(tmp_path, model_metrics_auto_detect=True) as served:
        report(served, update("QueueTime"))  # the name of a server metric is free in another file
        expected = "QueueTime.Count:2.0|#Stage:of Stage|#hostname:node1,requestID:id-1,timestamp:1795176000"
        assert [line.partition(" - ")[2] for line in served.file("model_metrics")] == [expected]


def test_printed_lines_define_metrics_too(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", model_metrics_auto_detect=True) as served:
        for kind in ("|#type:HISTOGRAM", ""):  # needed for the first update alone
            served.telemetry.printed(WORKER, "stderr", f"[METRICS]Took.s:0.3|#a:b{kind}|#hostname:h,1700000000")
        assert 'Took_count{a="b",Hostname="h",} 2.0' in served.scrape()
        assert f"{REGISTERED}Took.s:0.3|#a:b|#hostname:h,timestamp:1795176000" in served.stdout()[0]


def test_printed_line_without_a_type_defines_nothing(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", model_metrics_auto_detect=True) as served:
        served.telemetry.printed(WORKER, "stdout", "[METRICS]Took.s:0.3|#a:b|#hostname:h,1700000000")
        assert "Took" not in served.scrape()
        assert errors(served) == ["Failed to update backend metric Took: Its type is not known: the line has none"]


@pytest.mark.parametrize(
    ("name", "dimension", "cause"),
    [
        ("Name Space", "Stage", "Invalid metric name: Name Space"),
        ("Own", "no label", "Invalid metric label name: no label"),
        ("QueueTime", "Stage", "Collector already registered that provides name: QueueTime"),
        ("Own", "__name__", "Invalid metric label name, which Prometheus uses itself: __name__"),
        ("Own", "Hostname", "Metric Own has two labels named Hostname"),  # the server adds one
    ],
)
def test_what_cannot_be_exposed_is_told_and_dropped(tmp_path: Path, name: str, dimension: str, cause: str) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", model_metrics_auto_detect=True) as served:
        before = served.scrape()
        report(served, update(name, dimensions=(dimension,)))
        assert served.scrape() == before
        assert errors(served) == [f"Failed to update backend metric {name}: {cause}"]


def test_a_histogram_cannot_have_the_label_of_its_buckets(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", model_metrics_auto_detect=True) as served:
        report(served, update("Took", 0.3, "HISTOGRAM", ("le",)), update("Own", dimensions=("le",)))
        assert "Took" not in served.scrape()
        assert 'Own{le="of le",Hostname="node1",} 2.0' in served.scrape()
        cause = "Invalid metric label name, which Prometheus uses itself: le"
        assert errors(served) == [f"Failed to update backend metric Took: {cause}"]


def test_a_metric_cannot_take_the_name_of_a_sample_of_another_one(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", model_metrics_auto_detect=True) as served:
        report(served, update("Took", 0.3, "HISTOGRAM"), update("Took_sum"), update("Own"), update("Own", kind="GAUGE"))
        assert served.scrape().count("# TYPE Took") == 1
        cause = "Collector already registered that provides name: Took_sum"
        assert errors(served) == [f"Failed to update backend metric Took_sum: {cause}"]


def test_names_without_end_do_not_fill_the_memory(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", model_metrics_auto_detect=True) as served:
        for number in range(DETECTED_LIMIT + 1):
            report(served, update(f"Own{number}"))
        report(served, update("Own0"))
        assert served.scrape().count("# TYPE Own") == DETECTED_LIMIT
        assert 'Own0{Stage="of Stage",Hostname="node1",} 4.0' in served.scrape()
        cause = f"{DETECTED_LIMIT} metrics have been detected; further ones have to be in metrics_config."
        assert errors(served) == [f"Failed to update backend metric Own{DETECTED_LIMIT}: {cause}"]


def test_names_and_units_of_handlers_do_not_end_a_line(tmp_path: Path) -> None:
    with Served(tmp_path, model_metrics_auto_detect=True) as served:
        report(served, Metric("a\nb", "c\nd", 1.0, [("e", "f\ng")], "COUNTER", ""))
        (line,) = served.file("model_metrics")
        assert "a\\nb.c\\nd:1.0|#e:f\\ng|#hostname:" in line


def test_later_updates_have_to_fit_the_first_one(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", model_metrics_auto_detect=True) as served:
        report(served, update("Own"), update("Own", dimensions=("Stage", "Place")))
        assert 'Own{Stage="of Stage",Hostname="node1",} 2.0' in served.scrape()
        assert errors(served) == ["Failed to update backend metric Own: Incorrect number of labels."]


def test_label_values_without_end_do_not_fill_the_memory(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", model_metrics_auto_detect=True) as served:
        for number in range(SERIES_LIMIT + 2):
            report(served, Metric("Own", "Count", 1.0, [("Request", str(number))], "COUNTER", ""))
        assert served.scrape("Own").count("Own{") == SERIES_LIMIT
        assert len(errors(served)) == 1
        assert f"More than {SERIES_LIMIT} series" in errors(served)[0]
