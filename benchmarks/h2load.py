"""Runs the load generator h2load against a gRPC method, and reads its report."""

from __future__ import annotations

import re
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"

_COUNTS = re.compile(r"^requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed", re.MULTILINE)
_DATA = re.compile(r"^traffic: .*\((\d+)\) data$", re.MULTILINE)


class UnreadableH2loadReport(Exception):
    """The text is no report of h2load, or nobody was there to be loaded."""


@dataclass(frozen=True)
class H2loadRun:
    """What h2load saw. Times in seconds."""

    requests: int
    rate: float  # requests a second
    p50: float
    p99: float
    errors: int
    cpu: float  # seconds of processor time that h2load itself used


def predictions_request(model: str, body: str) -> bytes:
    """A request of `Predictions` with one input, `data`, as HTTP/2 carries it."""
    entry = _field(1, b"data") + _field(2, body.encode())
    return _framed(_field(1, model.encode()) + _field(3, entry))


def response_message(prediction: bytes) -> bytes:
    """A `PredictionResponse`."""
    return _field(1, prediction)


def response_size(prediction: bytes) -> int:
    """Bytes of a response as HTTP/2 carries it."""
    return len(_framed(response_message(prediction)))


def run_h2load(target: str, request: Path, answer: bytes, clients: int, seconds: int) -> H2loadRun:
    """Load `Predictions` from one thread, each client on a connection of its own. Raises UnreadableH2loadReport."""
    log = request.with_suffix(".log")
    log.unlink(missing_ok=True)
    before = _children_cpu()
    command = ["h2load", "-t1", f"-c{clients}", "-m1", f"-D{seconds}", f"--log-file={log}", "-d", str(request)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{target}{PREDICTIONS}"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    cpu = _children_cpu() - before
    times = [int(line.split("\t")[2]) / 1e6 for line in log.read_text().splitlines()] if log.exists() else []
    return parse_run(finished.stdout, times, response_size(answer), seconds, cpu)


def parse_run(text: str, times: list[float], size: int, seconds: int, cpu: float) -> H2loadRun:
    """A run from h2load's report and the times of its requests; each answer has to have brought `size` bytes.

    h2load knows the statuses of HTTP only, and failed calls have a good one; but they bring no message. Raises
    UnreadableH2loadReport.
    """
    counts, data = _COUNTS.search(text), _DATA.search(text)
    if counts is None or data is None or len(times) < 2:
        raise UnreadableH2loadReport(text)
    succeeded, failed = int(counts[1]), int(counts[2])
    empty = max(0, succeeded - int(data[1]) // size)
    ranks = quantiles(times, n=100, method="inclusive")
    return H2loadRun(succeeded, succeeded / seconds, ranks[49], ranks[98], failed + empty, cpu)


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _field(number: int, data: bytes) -> bytes:
    """A field of protobuf, of less than 128 bytes."""
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
