"""Runs the load generator wrk and reads its report."""

from __future__ import annotations

import json
import re
import resource
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PERCENTILE = re.compile(r"^\s+(\d+)%\s+([\d.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_TOTAL = re.compile(r"^\s+(\d+) requests in ", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)\s*$", re.MULTILINE)
_SOCKET_ERRORS = re.compile(r"^\s+Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", re.MULTILINE)
_BAD_STATUS = re.compile(r"^\s+Non-2xx or 3xx responses: (\d+)", re.MULTILINE)


class UnreadableReport(Exception):
    """The text is no report of `wrk --latency`."""


@dataclass(frozen=True)
class WrkReport:
    """What wrk saw. Times in seconds."""

    requests: int
    rate: float  # requests a second
    p50: float
    p99: float
    bad_statuses: int
    socket_errors: int

    @property
    def errors(self) -> int:
        return self.bad_statuses + self.socket_errors


def parse_report(text: str) -> WrkReport:
    """Raises UnreadableReport."""
    total = _TOTAL.search(text)
    percentiles = {int(rank): float(value) * _SECONDS[unit] for rank, value, unit in _PERCENTILE.findall(text)}
    rate = _RATE.search(text)
    if total is None or rate is None or not {50, 99} <= percentiles.keys():
        raise UnreadableReport(text)
    socket_errors = _SOCKET_ERRORS.search(text)
    bad_statuses = _BAD_STATUS.search(text)
    return WrkReport(
        requests=int(total[1]),
        rate=float(rate[1]),
        p50=percentiles[50],
        p99=percentiles[99],
        bad_statuses=int(bad_statuses[1]) if bad_statuses else 0,
        socket_errors=sum(map(int, socket_errors.groups())) if socket_errors else 0,
    )


def write_script(path: Path, mime: str, body: str, headers: Mapping[str, str] | None = None) -> None:
    """A script that fixes the request before the run, so that no Lua runs per request."""
    # A JSON string of ASCII text without escapes beyond \" and \\ is a Lua string as well.
    lines = [
        'wrk.method = "POST"',
        f'wrk.headers["Content-Type"] = {json.dumps(mime)}',
        f"wrk.body = {json.dumps(body)}",
        *(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in (headers or {}).items()),
    ]
    path.write_text("\n".join(lines) + "\n")


def write_body_script(path: Path, headers: Mapping[str, str], body: bytes) -> None:
    """The same for a body of any bytes, which lies in a file beside the script."""
    file = path.with_suffix(".body")
    file.write_bytes(body)
    lines = [
        'wrk.method = "POST"',
        f'wrk.body = io.open({json.dumps(str(file))}, "rb"):read("*a")',
        *(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()),
    ]
    path.write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class WrkRun:
    report: WrkReport
    cpu: float  # seconds of processor time that wrk itself used


def run_wrk(url: str, clients: int, seconds: int, script: Path) -> WrkRun:
    """Load one URL from one thread. Raises UnreadableReport, also when wrk finds no server."""
    before = _children_cpu()
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", str(script), url]
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return WrkRun(parse_report(finished.stdout), _children_cpu() - before)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
