"""Traces of predictions, as a collector gets them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from telemetry_served import NOON, WORKER, Served

from harness.otlp import Collector, attributes_of
from modelserver.errors import ConfigurationError
from modelserver.telemetry.records import WorkerLoaded
from modelserver.telemetry.ring import Ring

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"
FACTS: dict[str, Any] = {
    "method": "POST",
    "target": "/predictions/probe?x=1",
    "status": 200,
    "received": 1.0,
    "responded": 2.0,
    "worker": WORKER,
    "model": "probe",
    "label": "default",
    "request_id": "id-1",
    "sent": 1.25,
    "replied": 1.75,
    "handler": 0.25,
    "traceparent": PARENT,
    "tracestate": "",
}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as collector:
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        yield collector


def trace_of(collector: Collector, path: Path, **facts: Any) -> dict[str, Any]:
    """Spans by name of one traced prediction."""
    with Served(path, opentelemetry_traces=True) as served:
        served.telemetry.worker_loaded(WORKER, 1.0)
        served.telemetry.batch_done(WORKER, "probe", ["id-0"], 0.5, 1.125, [], True)
        served.telemetry.batch_done(WORKER, "probe", ["id-1"], 1.25, 1.75, [], True)
        served.telemetry.request_traced(**{**FACTS, **facts})
    return collector.trace("id-1")


def times(span: Any) -> tuple[float, float]:
    """Begin and end in seconds since noon, to the microsecond."""
    return round(span.start_time_unix_nano / 1e9 - NOON, 5), round(span.end_time_unix_nano / 1e9 - NOON, 5)


def test_where_the_time_went(collector: Collector, tmp_path: Path) -> None:
    spans = trace_of(collector, tmp_path)
    assert {name: times(span) for name, span in spans.items()} == {
        "predict probe": (1.0, 2.0),
        "queue": (1.0, 1.25),
        "batch": (1.125, 1.25),  # its worker was free since then
        "worker": (1.25, 1.75),
        "handler": (1.375, 1.625),
    }
    whole = spans["predict probe"]
    parents = {name: span.parent_span_id for name, span in spans.items()}
    assert parents["queue"] == parents["worker"] == whole.span_id
    assert (parents["batch"], parents["handler"]) == (spans["queue"].span_id, spans["worker"].span_id)
    assert collector.services[0] == "modelserver"


def test_the_callers_trace_goes_on(collector: Collector, tmp_path: Path) -> None:
    whole = trace_of(collector, tmp_path)["predict probe"]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, CALLER)


def test_what_it_tells_of_the_request(collector: Collector, tmp_path: Path) -> None:
    spans = trace_of(collector, tmp_path)
    assert attributes_of(spans["predict probe"]) == {
        "modelserver.model.name": "probe",
        "modelserver.model.version": "1.0",
        "modelserver.request_id": "id-1",
        "http.request.method": "POST",
        "url.path": "/predictions/probe",
        "http.response.status_code": 200,
    }
    assert attributes_of(spans["worker"]) == {"modelserver.worker": WORKER}
    assert spans["predict probe"].status.code == 0


def test_a_grpc_call(collector: Collector, tmp_path: Path) -> None:
    spans = trace_of(collector, tmp_path, method="gRPC", target="a.B/Predictions", status=13)
    attributes = attributes_of(spans["predict probe"])
    assert (attributes["rpc.service"], attributes["rpc.method"], attributes["rpc.grpc.status_code"]) == (
        "a.B",
        "Predictions",
        13,
    )
    assert spans["predict probe"].status.message == "gRPC status 13"


@pytest.mark.parametrize(
    ("status", "failed", "message"),
    [(404, False, ""), (503, True, "HTTP status 503"), (0, True, "the client has left")],
)
def test_failures(collector: Collector, tmp_path: Path, status: int, failed: bool, message: str) -> None:
    whole = trace_of(collector, tmp_path, status=status)["predict probe"]
    assert (whole.status.code == 2, whole.status.message) == (failed, message)


def test_a_request_that_no_worker_has_seen(collector: Collector, tmp_path: Path) -> None:
    spans = trace_of(collector, tmp_path, status=503, worker="", sent=0.0, replied=0.0, handler=0.0)
    assert {name: times(span) for name, span in spans.items()} == {"predict probe": (1.0, 2.0), "queue": (1.0, 2.0)}
    assert attributes_of(spans["predict probe"])["modelserver.model.version"] == "default"


def test_without_a_caller_a_trace_begins(collector: Collector, tmp_path: Path) -> None:
    for parent in ("", "gibberish"):
        whole = trace_of(collector, tmp_path, traceparent=parent)["predict probe"]
        assert whole.parent_span_id == b""
        collector.spans.clear()


def test_a_caller_that_is_not_sampled_is_believed(collector: Collector, tmp_path: Path) -> None:
    with Served(tmp_path, opentelemetry_traces=True) as served:
        served.telemetry.request_traced(**{**FACTS, "traceparent": f"00-{TRACE}-{CALLER}-00"})
        served.telemetry.request_traced(**{**FACTS, "request_id": "id-2", "traceparent": ""})
    collector.trace("id-2")
    assert {attributes_of(span).get("modelserver.request_id") for span in collector.spans} == {None, "id-2"}


def test_the_environment_names_the_service(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    trace_of(collector, tmp_path)
    assert collector.services[0] == "shop"


def test_without_the_library_the_start_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(
        ConfigurationError, match=r"opentelemetry_traces needs packages: pip install 'modelserver\[otel\]'"
    ):
        Served(tmp_path, opentelemetry_traces=True)


def test_a_variable_that_the_library_cannot_use_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with pytest.raises(
        ConfigurationError, match=r"^opentelemetry_traces: a variable OTEL_\.\.\. is wrong: max_queue_size"
    ):
        Served(tmp_path, opentelemetry_traces=True)


def test_traces_are_dropped_before_anything_else(collector: Collector, tmp_path: Path) -> None:
    """And what to do about it is said once."""
    with Served(tmp_path, opentelemetry_traces=True, ring=Ring(events=4)) as served:  # without room to spare
        for _ in range(3):
            served.telemetry.request_traced(**FACTS)
        served.get()
        assert len(served.file("access_log")) == 1
        assert len([line for line in served.stdout() if "faster than their traces can be made" in line]) == 1
    assert collector.spans == []


def test_an_eighth_of_the_ring_is_for_what_can_be_spared() -> None:
    ring = Ring(events=32)
    event = WorkerLoaded(0.0, WORKER, 1.0)
    assert [ring.offer_spare(event) for _ in range(5)] == [True] * 4 + [False]
    ring.offer(event)
    assert len(ring.take(100)) == 5


def test_nobody_pays_for_what_is_not_asked_for() -> None:
    """A server without these wishes imports no library for them."""
    libraries = "{'opentelemetry', 'pynvml', 'prometheus_client', 'requests'}"
    script = f"import sys, modelserver.server; print(sorted({libraries} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
