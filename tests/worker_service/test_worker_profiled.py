"""Profiles of what a worker does with its batches."""

from __future__ import annotations

import os
import pstats
from pathlib import Path

import pytest
from workshop import batch, load, request

SOURCE = """
def work(data):
    return [row["body"] for row in data]

def handle(data, context):
    return data and work(data)
"""


def functions(path: Path) -> set[str]:
    return set(pstats.Stats(str(path)).get_stats_profile().func_profiles)


@pytest.mark.parametrize("value", ["True", "true", "TRUE"])
def test_a_profile_of_the_last_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TS_BENCHMARK", value)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    service = load(tmp_path / "model", SOURCE)
    assert service.handle(batch(request(b"a"))).replies[0].body == b"a"
    assert {"work", "handle"} <= functions(tmp_path / "tsPythonProfile.prof")


def test_each_worker_has_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TS_BENCHMARK", "TRUE")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for _ in range(2):
        load(tmp_path / "model", SOURCE).handle(batch(request(b"a")))
    assert "work" in functions(tmp_path / f"tsPythonProfile.prof.{os.getpid()}")


@pytest.mark.parametrize("value", [None, "", "false", "1", "yes"])
def test_no_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("TS_BENCHMARK", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    if value is not None:
        monkeypatch.setenv("TS_BENCHMARK", value)
    load(tmp_path / "model", SOURCE).handle(batch(request(b"a")))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
