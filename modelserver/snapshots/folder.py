"""The directory of saved configurations on disk. Everything here blocks."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from modelserver.settings.snapshot_files import in_order, is_partial, moment_of, partial_name

_KEPT_ALWAYS: Final = 10  # newest files that are never deleted
_TICK: Final = timedelta(milliseconds=1)  # names tell no less


class SnapshotFolder:
    """Whole files or none: each is written under another name first."""

    def __init__(self, path: Path, keep: int) -> None:
        """`keep`: how many of the newest files stay; 0: all."""
        self._path = path
        self._keep = max(keep, _KEPT_ALWAYS) if keep else 0
        self._last: datetime | None = None  # moment of the newest file

    def open(self) -> None:
        """Make the directory; remove what killed servers have left half written. Raises OSError."""
        self._path.mkdir(parents=True, exist_ok=True)
        names = self._names()
        for name in filter(is_partial, names):
            with suppress(OSError):
                (self._path / name).unlink()
        saved = in_order(names)
        self._last = moment_of(saved[-1]) if saved else None

    def next_moment(self, now: datetime) -> datetime:
        """Later than that of every file there is: a clock that was set back must not make an old one the newest."""
        with suppress(OverflowError):  # a file of the year 9999
            if self._last is not None and now < self._last + _TICK:
                now = self._last + _TICK
        self._last = now
        return now

    def save(self, name: str, content: bytes) -> bool:
        """Write a file that only this user may read: it may hold a password.

        False if there is one of that name, which stays as it is. Raises OSError.
        """
        target, partial = self._path / name, self._path / partial_name(name)
        self._path.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return False
        file = open(partial, "xb", opener=_open_private)  # noqa: SIM115 -- an error here must not remove the file
        try:
            with file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(target)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        return True

    def prune(self) -> None:
        """Delete the oldest files. Raises OSError."""
        if self._keep:
            for name in in_order(self._names())[: -self._keep]:
                (self._path / name).unlink(missing_ok=True)

    def _names(self) -> list[str]:
        return [entry.name for entry in self._path.iterdir()]


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
