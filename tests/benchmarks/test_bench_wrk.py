"""Reading wrk's report, and the requests it is told to send."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.wrk import UnreadableReport, parse_report, write_script

REPORT = """\
Running 4s test @ http://127.0.0.1:8080/predictions/noop
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.38ms  483.68us   7.91ms   81.56%
    Req/Sec     2.82k   181.94     3.01k    81.82%
  Latency Distribution
     50%  950.00us
     75%    1.56ms
     90%    1.86ms
     99%    1.02s
  12087 requests in 4.10s, 1.53MB read
Requests/sec:   2948.05
Transfer/sec:      1.39MB
"""


def test_report_without_errors() -> None:
    report = parse_report(REPORT)
    assert (report.requests, report.rate, report.p99) == (12087, 2948.05, 1.02)
    assert report.p50 == pytest.approx(950e-6)
    assert report.errors == 0


def test_errors_of_both_kinds_count() -> None:
    lines = "  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 50000\n"
    report = parse_report(REPORT.replace("Requests/sec", lines + "Requests/sec"))
    assert report.socket_errors == 4321
    assert report.bad_statuses == 50000
    assert report.errors == 54321


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unable to connect to 127.0.0.1:1 Connection refused\n",
        REPORT.replace("     99%", "     98%"),
        REPORT.replace("Requests/sec", "Requests/min"),
        REPORT.replace("requests in", "replies in"),
    ],
    ids=["empty", "refused", "no 99th percentile", "no rate", "no total"],
)
def test_anything_else_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableReport):
        parse_report(text)


def test_script_fixes_the_request(tmp_path: Path) -> None:
    script = tmp_path / "request.lua"
    write_script(script, "application/json", '{"features": [0.5]}')
    assert script.read_text().splitlines() == [
        'wrk.method = "POST"',
        'wrk.headers["Content-Type"] = "application/json"',
        r'wrk.body = "{\"features\": [0.5]}"',
    ]
