"""A worker by itself: both protocols are spoken as workers understand them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import ts
from benchmarks.plan import BATCHED
from benchmarks.workbench import LOADS, Bodies, Worker, measure_rate, start_listening, start_own

PYTHON = Path(sys.executable)


def answered(worker: Worker[Any], bodies: Bodies) -> int:
    """Bytes of the answer to a batch; asked twice, because the second answer is read by its length alone."""
    batch = worker.batch(bodies)
    worker.exchange(batch)
    return worker.exchange(batch)


@pytest.mark.parametrize("size", [10, 100_000])
def test_our_own_worker(tmp_path: Path, size: int) -> None:
    with start_own(PYTHON, tmp_path / "model") as worker:
        sent = answered(worker, Bodies("b", "application/octet-stream", bytes(size)))
        assert sent >= BATCHED * size
        indented = answered(worker, Bodies("j", "application/json", b"[1,2]"))
        assert indented > BATCHED * len(b"[\n  1,\n  2\n]")


def test_a_worker_of_the_other_protocol(tmp_path: Path) -> None:
    package = Path(ts.__file__).parent
    with start_listening(PYTHON, package, tmp_path / "model") as worker:
        for size in (10, 100_000):
            sent = answered(worker, Bodies("b", "application/octet-stream", bytes(size)))
            assert BATCHED * size < sent < BATCHED * (size + 200)
        assert measure_rate(worker, worker.batch(LOADS[0]), 0.0) == 0
