"""Archives from `file://` urls."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from modelserver.archives.urls import file_path


class LocalFile:
    """A regular file of this machine: nothing that could block, or has no end."""

    encoding = ""

    def __init__(self, url: str) -> None:
        """Raises ValueError."""
        self._path = Path(file_path(url))
        self._descriptor: int | None = None
        self._ended: str | None = None
        self.size: int | None = None

    def open(self) -> None:
        """Raises OSError."""
        # A pipe would keep whoever opens it waiting for its other end.
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        facts = os.fstat(self._descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(f"not a regular file: {self._path}")
        self.size = facts.st_size

    def read(self, limit: int) -> bytes:
        """Raises OSError."""
        if self._ended is not None:
            raise OSError(self._ended)
        assert self._descriptor is not None
        return os.read(self._descriptor, limit)

    def cut(self, reason: str) -> None:
        """The next `read` fails."""
        self._ended = reason

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
