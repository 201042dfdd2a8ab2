"""Histograms of where the time of requests goes, by model and version."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from telemetry_served import WORKER, Served, prediction_time

from modelserver.telemetry.latencies import DEFINITIONS, version_of

NAMES = [definition.name for definition in DEFINITIONS]
LABELS = 'model_name="probe",model_version="1.0",'


def histograms(text: str) -> dict[str, tuple[float, float]]:
    """Count and sum of each, in the one series that there is."""
    found: dict[str, tuple[float, float]] = {}
    for name in NAMES:
        count = re.search(rf"^{name}_count\{{{LABELS}\}} (\S+)$", text, re.MULTILINE)
        total = re.search(rf"^{name}_sum\{{{LABELS}\}} (\S+)$", text, re.MULTILINE)
        if count and total:
            found[name.removeprefix("modelserver_")] = float(count[1]), float(total[1])
    return found


def test_there_are_none_by_default(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS") as served:
        served.batch("a", metrics=[prediction_time("a")])
        served.predict("a")
        assert "modelserver_" not in served.scrape()


@pytest.mark.parametrize("mode", ["PROMETHEUS", "LEGACY"])
def test_one_prediction(tmp_path: Path, mode: str) -> None:
    """Received at 0 s, sent at 0.125 s, replied to at 0.1875 s, answered at 0.25 s; the handler took 0.35 ms."""
    with Served(tmp_path, metrics_mode=mode, metrics_histograms=True) as served:
        served.telemetry.worker_loaded(WORKER, 1000.0)
        served.batch("a", metrics=[prediction_time("a")])
        served.predict("a")
        assert histograms(served.scrape()) == {
            "request_duration_seconds": (1.0, 0.25),
            "queue_duration_seconds": (1.0, 0.125),
            "batch_wait_seconds": (1.0, 0.125),
            "handler_duration_seconds": (1.0, 0.00035),
            "batch_size": (1.0, 1.0),
        }


def test_only_what_is_waited_with_a_free_worker_is_waited_for_company(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", metrics_histograms=True) as served:
        served.telemetry.batch_done(WORKER, "probe", ["before"], 0.0, 0.1, [prediction_time("before")], True)
        served.batch("a", "b", metrics=[prediction_time("a,b")])
        served.predict("a")
        served.predict("b")
        found = histograms(served.scrape())
        assert found["batch_wait_seconds"] == pytest.approx((2.0, 2 * 0.025))
        assert found["queue_duration_seconds"] == (2.0, 0.25)
        assert found["batch_size"] == (2.0, 3.0)


def test_a_request_that_ends_behind_later_batches_finds_its_own(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", metrics_histograms=True) as served:
        served.telemetry.batch_done(WORKER, "probe", ["before"], 0.0, 0.1, [], True)
        served.batch("a")
        served.telemetry.batch_done(WORKER, "probe", ["behind"], 0.19, 0.2, [], True)
        served.predict("a")
        assert histograms(served.scrape())["batch_wait_seconds"] == pytest.approx((1.0, 0.025))


def test_failures_are_left_out(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", metrics_histograms=True) as served:
        served.batch("a")
        served.predict("a", status=503, ok=False)
        served.get()
        assert histograms(served.scrape()) == {}
        assert "# HELP modelserver_batch_size Requests in a batch.\n# TYPE modelserver_batch_size" in served.scrape()


def test_grpc_predictions_are_observed(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", metrics_histograms=True) as served:
        served.telemetry.request_done(
            "/127.0.0.1:5", "gRPC", "x/Predictions", "HTTP/2.0", 0, 0.0, 0.25,
            WORKER, "probe", "default", "id-1", 0.125, 0.1875, True,
        )  # fmt: skip
        assert histograms(served.scrape())["request_duration_seconds"] == (1.0, 0.25)


@pytest.mark.parametrize("mode", ["PROMETHEUS", "LEGACY"])
def test_a_file_may_choose_the_buckets(tmp_path: Path, mode: str) -> None:
    spec = f"{{name: {NAMES[0]}, unit: Seconds, dimensions: [], buckets: [0.2, 0.3]}}"
    (tmp_path / "own.yaml").write_text(f"ts_metrics:\n  histogram:\n    - {spec}\n")
    settings: dict[str, Any] = {
        "metrics_mode": mode,
        "metrics_histograms": True,
        "metrics_config": tmp_path / "own.yaml",
    }
    with Served(tmp_path, **settings) as served:
        served.predict("a")
        buckets = re.findall(rf'{NAMES[0]}_bucket{{{LABELS}le="(\S+)",}} (\S+)', served.scrape())
        assert buckets == [("0.2", "0.0"), ("0.3", "1.0"), ("+Inf", "1.0")]


def test_log_mode_has_none_and_says_so(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_histograms=True) as served:
        served.predict("a")
        assert not any("modelserver_" in line for line in served.file("ts_metrics"))
        assert "metrics_histograms has no effect in this mode: set metrics_mode=prometheus" in served.stdout()[0]


@pytest.mark.parametrize(
    ("worker", "model", "version"),
    [
        ("W-9000-probe_1.0", "probe", "1.0"),
        ("W-9000-my_model-2_1.0_beta", "my_model-2", "1.0_beta"),
        ("W-9000-a-1_1", "a-1", "1"),
        ("", "probe", ""),
    ],
)
def test_version_by_the_name_of_a_worker(worker: str, model: str, version: str) -> None:
    assert version_of(worker, model) == version
