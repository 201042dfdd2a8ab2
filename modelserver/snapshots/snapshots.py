"""Saves the configuration with the models of the moment: at the start, after every change, at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final, Protocol

from modelserver.settings.snapshot import SavedModels, format_snapshot
from modelserver.settings.snapshot_files import CHANGE, FOLDER, SHUTDOWN, STARTUP, document, file_name
from modelserver.settings.table import Settings
from modelserver.settings.version import version
from modelserver.snapshots.folder import SnapshotFolder

_LOGGER: Final = "snapshot.SnapshotManager"
_PATIENCE: Final = 2.0  # seconds that a caller waits for its file: a disk that hangs must not hang the server
_MOST_WAITING: Final = 100  # files


class Log(Protocol):
    """The part of telemetry that is used here; called from any thread."""

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        """One line of the server."""


class Snapshots:
    """Writes one file after the other in a thread of its own; implements the engine's `Changes`.

    Nothing is saved before `open` and after `close`, so that a start that fails leaves no trace.
    """

    def __init__(self, settings: Settings, log: Log) -> None:
        self._properties = _properties(settings)
        self._path = settings.snapshot_location / FOLDER
        self._folder = SnapshotFolder(self._path, settings.snapshot_keep)
        self._log = log
        self._thread = ThreadPoolExecutor(1, "snapshots")
        self._open = False
        self._waiting = 0  # files
        self._failing = False  # the last file could not be written, and that was said

    async def open(self, models: SavedModels) -> None:
        """The start is complete."""
        self._open = True
        await self._save(STARTUP, models)

    async def models_changed(self, models: SavedModels) -> None:
        """Returns when that is saved, or cannot be, and within seconds."""
        if self._open:
            await self._save(CHANGE, models)

    async def close(self, models: SavedModels) -> None:
        """The server stops; its models have not ended yet."""
        if self._open:
            self._open = False
            await self._save(SHUTDOWN, models)
        self._thread.shutdown(wait=False)

    async def _save(self, kind: str, models: SavedModels) -> None:
        if self._waiting >= _MOST_WAITING:
            self._complain(f"Error while saving snapshot: {self._waiting} files are waiting for the disk")
            return
        self._waiting += 1
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._thread, self._write, kind, models, datetime.now())
        writing.add_done_callback(self._written)
        await asyncio.wait([writing], timeout=_PATIENCE)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._waiting -= 1
        if not writing.cancelled() and (error := writing.exception()):
            self._complain(f"Error while saving snapshot: {error!r}")

    def _write(self, kind: str, models: SavedModels, now: datetime) -> None:
        """Runs in the thread."""
        name = file_name(now, kind)
        try:
            if kind == STARTUP:
                self._folder.open()
            moment = self._folder.next_moment(now)
            name = file_name(moment, kind)
            text = format_snapshot(name, int(now.timestamp() * 1000), models)
            content = document({**self._properties, "model_snapshot": text}, now, version())
            if not self._folder.save(name, content):
                self._complain(f"Snapshot {name} already exists. Not saving the sanpshot.")
                return
            self._folder.prune()
            self._failing = False
        except OSError as error:
            self._complain(f"Error while saving snapshot to file {name} in {self._path}: {error.strerror}")

    def _complain(self, message: str) -> None:
        """Once, until a file is written again: a full disk stays full for long."""
        if not self._failing:
            self._failing = True
            self._log.log("ERROR", _LOGGER, message)


def _properties(settings: Settings) -> Mapping[str, str]:
    """Everything but the models: what was given, and what follows from it."""
    facts = {"python": str(settings.python), "version": version()}
    if settings.config_file is not None:
        facts["tsConfigFile"] = settings.config_file
    return {**settings.properties, **facts}
