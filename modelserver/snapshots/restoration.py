"""Brings the models of a saved configuration back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from modelserver.engine.requests import Registered, Registration
from modelserver.errors import InvalidSnapshot, ServerError
from modelserver.settings.snapshot import SavedVersion, Snapshot
from modelserver.snapshots.snapshots import Log

_LOGGER: Final = "snapshot.SnapshotManager"


class Engine(Protocol):
    """The part of the engine that is used here."""

    async def register(self, registration: Registration) -> Registered:
        """Register one model version."""

    async def set_default(self, model: str, version: str) -> None:
        """Make a version the default."""


async def restore(snapshot: Snapshot, text: str, model_store: Path, engine: Engine, log: Log) -> None:
    """Register every version as it was; workers load behind it. One that fails is reported and left out.

    `text` is the snapshot's JSON. Raises InvalidSnapshot if an archive is missing: nothing is registered then.
    """
    log.log("INFO", _LOGGER, f"Started restoring models from snapshot {text}")
    log.log("INFO", _LOGGER, f"Validating snapshot {snapshot.name}")
    missing = await asyncio.to_thread(_missing, snapshot, model_store)
    for model, version in missing:
        message = f"Model archive file for model {model}, version {version} not found in model store"
        log.log("ERROR", _LOGGER, message)
    if missing:
        model, version = missing[0]
        raise InvalidSnapshot(f"Model archive file for model :{model}, version :{version} not found in model store")
    log.log("INFO", _LOGGER, f"Snapshot {snapshot.name} validated successfully")
    if snapshot.model_count <= 0:
        log.log("WARN", _LOGGER, "Model snapshot is empty. Starting TorchServe without initial models.")
        return
    for model, versions in snapshot.models.items():
        await _restore_model(model, versions, engine, log)


def _missing(snapshot: Snapshot, model_store: Path) -> list[tuple[str, str]]:
    """Model and version of every entry without an archive. Blocks."""
    return [
        (model, version)
        for model, versions in snapshot.models.items()
        for version, entry in versions.items()
        if not os.path.exists(model_store / entry.mar_name)  # noqa: PTH110 -- the method raises on some names
    ]


async def _restore_model(model: str, versions: Mapping[str, SavedVersion], engine: Engine, log: Log) -> None:
    for version, entry in versions.items():
        try:
            restored = await engine.register(_registration(model, entry))
            if entry.default:
                await engine.set_default(model, restored.version)
        except ServerError as error:
            message = f"Error while registering model. Details: {error.message} (model {model}, version {version})"
            log.log("ERROR", _LOGGER, message)


def _registration(model: str, entry: SavedVersion) -> Registration:
    """The version is the archive's own, whatever the file calls it."""
    return Registration(
        url=entry.mar_name,
        model_name=model,
        handler=entry.handler or None,
        runtime=entry.runtime,
        synchronous=False,
        saved=entry,
    )
