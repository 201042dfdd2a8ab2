"""What a response tells of its time, and what is told for a trace: only where it is asked for."""

from __future__ import annotations

import re
from typing import Any

from rest_doubles import MemoryEngine, Service

from modelserver.engine.job import Job
from modelserver.rest.call import Call
from modelserver.rest.call_class import call_class
from modelserver.rest.receipt import timing
from modelserver.settings.table import Settings
from modelserver.wire.frames import Request

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def job(**times: Any) -> Job:
    """One with these times."""
    made = Job(Request("id", [], [], {}), "m", "default", 10.0, lambda _: None)
    for name, value in times.items():
        setattr(made, name, value)
    return made


def service(**settings: bool) -> Service:
    return Service(MemoryEngine("m"), settings=Settings(**settings))  # type: ignore[arg-type]


def test_nothing_is_the_default() -> None:
    assert call_class(Settings()) is Call
    here = service()
    assert "server-timing" not in here.request("POST", "/predictions/m").headers
    assert here.telemetry.traced == []


def test_times_in_milliseconds() -> None:
    done = job(sent=10.25, replied=10.5, handler_ns=125_000_000)
    assert timing(done, 11.0) == "queue;dur=250.000, worker;dur=250.000, handler;dur=125.000, total;dur=1000.000"


def test_times_of_a_stream_that_begins() -> None:
    """The worker has not replied yet, but the first piece is here."""
    assert timing(job(sent=10.25), 10.5) == "queue;dur=250.000, worker;dur=250.000, total;dur=500.000"


def test_predictions_tell_their_times() -> None:
    here = service(server_timing=True)
    found = here.request("POST", "/predictions/m").headers["server-timing"]
    assert re.fullmatch(r"queue;dur=\d+\.\d{3}, worker;dur=\d+\.\d{3}, total;dur=\d+\.\d{3}", found)
    assert "server-timing" not in here.request("GET", "/ping").headers
    assert "server-timing" not in here.request("POST", "/predictions/nobody").headers


def test_predictions_are_traced() -> None:
    here = service(opentelemetry_traces=True)
    here.request("POST", "/predictions/m/1.0?x=1", b"", f"Traceparent: {PARENT}", "tracestate: a=b")
    (traced,) = here.telemetry.traced
    assert (traced["method"], traced["target"], traced["status"]) == ("POST", "/predictions/m/1.0?x=1", 200)
    assert (traced["model"], traced["label"]) == ("m", "1.0")
    assert (traced["traceparent"], traced["tracestate"]) == (PARENT, "a=b")
    here.request("GET", "/ping")
    assert len(here.telemetry.traced) == 1


def test_all_wishes_at_once() -> None:
    here = service(opentelemetry_traces=True, server_timing=True)
    assert "server-timing" in here.request("POST", "/predictions/m").headers
    assert len(here.telemetry.traced) == 1
    assert len(here.telemetry.records) == 1
