"""The OpenMetrics form of what is exposed, read by a parser that is strict about it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from telemetry_served import Served, prediction_time

from modelserver.telemetry.definitions import HISTOGRAM, Definition
from modelserver.telemetry.exposition import pieces, render
from modelserver.telemetry.families import Family


def scrape(served: Served, *names: str) -> str:
    return asyncio.run(served.telemetry.scrape(names, openmetrics=True)).decode()


def test_a_strict_parser_reads_it(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS", metrics_histograms=True) as served:
        served.batch("a", metrics=[prediction_time("a")])
        served.predict("a")
        families = text_string_to_metric_families(scrape(served))  # type: ignore[no-untyped-call]
        parsed = {family.name: family for family in families}
    assert [sample.name for sample in parsed["Requests2XX"].samples] == ["Requests2XX_total"]
    (requests,) = parsed["ts_inference_requests"].samples
    assert (requests.name, requests.value) == ("ts_inference_requests_total", 1.0)
    assert requests.labels == {"model_name": "probe", "model_version": "default", "hostname": "node1"}
    assert parsed["QueueTime"].type == "gauge"
    assert parsed["modelserver_queue_duration_seconds"].type == "histogram"


def test_lines() -> None:
    family = Family(Definition("H", HISTOGRAM, "ms", ("a",), (0.5,)))
    family.child(("x",)).update(0.25)
    assert render([family], openmetrics=True).splitlines()[2:] == [
        'H_bucket{a="x",le="0.5"} 1.0',
        'H_bucket{a="x",le="+Inf"} 1.0',
        'H_count{a="x"} 1.0',
        'H_sum{a="x"} 0.25',
        "# EOF",
    ]


def test_nothing_ends_as_well(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        assert scrape(served) == "# EOF\n"
        assert scrape(served, "nosuch") == "# EOF\n"


def test_large_families_come_in_pieces() -> None:
    """Of bounded size, so that nobody waits long for the interpreter; together they are the whole text."""
    family = Family(Definition("C", "counter", "Count", ("a",)))
    for number in range(2345):
        family.child((str(number),)).update(1)
    parts = list(pieces([family, Family(Definition("D", "gauge", "Count", ("a",)))]))
    assert max(part.count("\n") for part in parts) <= 502
    assert "".join(parts).count("C{a=") == 2345
    assert "".join(parts).endswith("# TYPE D gauge\n")
    assert "".join(parts) == render([family, Family(Definition("D", "gauge", "Count", ("a",)))])
