"""Restoring: every version as it was; what cannot be restored is named, and the others come back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from modelserver.engine.requests import Registered, Registration
from modelserver.errors import InvalidModel, InvalidSnapshot
from modelserver.settings.snapshot import SavedVersion, Snapshot, format_snapshot, parse_snapshot
from modelserver.snapshots.restoration import restore

ENTRY = SavedVersion(mar_name="a.mar", default=True, min_workers=1, max_workers=1, batch_size=1, max_batch_delay=100)


@dataclass
class MemoryEngine:
    """Remembers what it was asked; archives have the version 1.0, or what follows the dash in their name."""

    refused: str = ""  # url of an archive that is none
    registered: list[Registration] = field(default_factory=list)
    defaults: list[tuple[str, str]] = field(default_factory=list)

    async def register(self, registration: Registration) -> Registered:
        if registration.url == self.refused:
            raise InvalidModel("it is broken")
        self.registered.append(registration)
        version = registration.url.removesuffix(".mar").partition("-")[2] or "1.0"
        return Registered(registration.model_name or "", version, 1)

    async def set_default(self, model: str, version: str) -> None:
        self.defaults.append((model, version))


@dataclass
class Log:
    """Remembers what is logged."""

    lines: list[str] = field(default_factory=list)

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        self.lines.append(f"{level} {message}")


class Scene:
    """A model store with archives, an engine and a log."""

    def __init__(self, store: Path, *archives: str, refused: str = "") -> None:
        for archive in archives:
            (store / archive).touch()
        self.store = store
        self.engine = MemoryEngine(refused)
        self.log = Log()

    def restore(self, snapshot: Snapshot) -> None:
        asyncio.run(restore(snapshot, "{...}", self.store, self.engine, self.log))


def snapshot_of(**models: dict[str, SavedVersion]) -> Snapshot:
    return parse_snapshot(format_snapshot("s.cfg", 1, models))


def test_every_version_as_it_was(tmp_path: Path) -> None:
    old, new = replace(ENTRY, default=False), replace(ENTRY, mar_name="a-2.0.mar", handler="h.py:f", runtime="python3")
    scene = Scene(tmp_path, "a.mar", "a-2.0.mar")
    scene.restore(snapshot_of(m={"1.0": old, "7.0": new}))
    first, second = scene.engine.registered
    assert first == Registration(
        url="a.mar", model_name="m", runtime="python", synchronous=False, at_startup=False, saved=old
    )
    assert (second.url, second.handler, second.runtime, second.saved) == ("a-2.0.mar", "h.py:f", "python3", new)
    assert scene.engine.defaults == [("m", "2.0")], "the archive's own version"
    assert scene.log.lines == [
        "INFO Started restoring models from snapshot {...}",
        "INFO Validating snapshot s.cfg",
        "INFO Snapshot s.cfg validated successfully",
    ]


def test_a_missing_archive_stops_the_start(tmp_path: Path) -> None:
    """Before anything is registered; each one is named in the log."""
    scene = Scene(tmp_path, "a.mar")
    gone = replace(ENTRY, mar_name="gone.mar")
    with pytest.raises(InvalidSnapshot) as refused:
        scene.restore(snapshot_of(a={"1.0": ENTRY}, b={"2.0": gone}, c={"1.0": replace(gone, mar_name="\0")}))
    assert str(refused.value) == "Model archive file for model :b, version :2.0 not found in model store"
    assert scene.log.lines[2:] == [
        "ERROR Model archive file for model b, version 2.0 not found in model store",
        "ERROR Model archive file for model c, version 1.0 not found in model store",
    ]
    assert scene.engine.registered == []


def test_a_model_that_fails_is_left_out(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "a.mar", "b.mar", refused="a.mar")
    scene.restore(snapshot_of(a={"1.0": ENTRY}, b={"1.0": replace(ENTRY, mar_name="b.mar")}))
    assert [registration.url for registration in scene.engine.registered] == ["b.mar"]
    assert scene.log.lines[-1] == "ERROR Error while registering model. Details: it is broken (model a, version 1.0)"


def test_a_model_outside_the_store(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    scene = Scene(tmp_path)
    scene.restore(snapshot_of(a={"1.0": replace(ENTRY, mar_name=str(elsewhere))}))
    assert [registration.url for registration in scene.engine.registered] == [str(elsewhere)]


def test_an_empty_snapshot(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "a.mar")
    members = {"defaultVersion": True, "marName": "a.mar", "minWorkers": 1, "maxWorkers": 1}
    entry = {**members, "batchSize": 1, "maxBatchDelay": 1}
    scene.restore(parse_snapshot(json.dumps({"modelCount": 0, "models": {"a": {"1.0": entry}}})))
    assert scene.engine.registered == []
    assert scene.log.lines[-1] == "WARN Model snapshot is empty. Starting TorchServe without initial models."
