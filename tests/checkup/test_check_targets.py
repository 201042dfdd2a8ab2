"""Which archives are looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelserver.checkup.targets import Target, find_targets, stored_name
from modelserver.settings.snapshot import parse_snapshot
from modelserver.settings.table import Settings

ENTRY = {
    "defaultVersion": True,
    "marName": "b.mar",
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 1,
    "maxBatchDelay": 100,
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for name in ("a.mar", "b.mar", "c.tar.gz", "notes.txt", ".hidden.mar"):
        (tmp_path / name).touch()
    for name in ("folder", "packed"):
        (tmp_path / name).mkdir()
    (tmp_path / "packed" / "MAR-INF").mkdir()
    (tmp_path / "packed" / "MAR-INF" / "MANIFEST.json").touch()
    return tmp_path


def named(targets: list[Target]) -> list[tuple[str, str | None, bool]]:
    return [(target.url, target.name, target.loaded) for target in targets]


def test_what_is_loaded_comes_first_and_everything_once(store: Path) -> None:
    settings = Settings(load_models="x=b.mar, https://example.org/c.tar.gz?x=1,gone.mar")
    assert named(find_targets(settings, store)) == [
        ("b.mar", "x", True),
        ("https://example.org/c.tar.gz?x=1", None, True),
        ("gone.mar", None, True),
        ("a.mar", None, False),
        ("packed", None, False),
    ], "a directory without a manifest may be anything"


def test_the_whole_store(store: Path) -> None:
    targets = find_targets(Settings(load_models="all"), store)
    assert named(targets) == [(name, None, True) for name in ("a.mar", "b.mar", "c.tar.gz", "folder", "packed")]
    assert not any(target.loaded for target in find_targets(Settings(), store))


def test_a_saved_configuration_takes_the_place_of_load_models(store: Path) -> None:
    saved = parse_snapshot(json.dumps({"modelCount": 1, "models": {"m": {"1.0": ENTRY}}}))
    targets = find_targets(Settings(load_models="a.mar", model_snapshot=saved), store)
    assert named(targets)[:2] == [("b.mar", "m", True), ("a.mar", None, False)]
    assert targets[0].saved is not None and not targets[0].startup
    empty = parse_snapshot(json.dumps({"modelCount": 0, "models": {"m": {"1.0": ENTRY}}}))
    assert not any(target.loaded for target in find_targets(Settings(model_snapshot=empty), store))


def test_the_file_that_a_url_becomes() -> None:
    assert stored_name("https://example.org/a/b.mar?token=1") == "b.mar"
    assert stored_name("/abs/b.mar") == "b.mar"
    assert stored_name("https://example.org/") == ""
