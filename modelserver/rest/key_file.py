"""The file by which whoever started the server learns the keys."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


class KeyFile:
    """A file for the eyes of its owner only, at every moment of its life."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: bytes | None = None

    def write(self, text: str) -> None:
        """Put the text in place of what is there, be it a symbolic link, in one step. Raises OSError."""
        data = text.encode("ascii")
        try:
            self._replace(data)
        except OSError as error:
            raise OSError(error.errno, f"Failed to write key file: {self.path}: {error.strerror}") from None
        self._written = data

    def remove(self) -> None:
        """Delete the file unless it holds something else by now, for instance the keys of the next server."""
        try:
            if self._written is not None and self._read(len(self._written) + 1) == self._written:
                self.path.unlink()
        except OSError:  # it is gone or out of reach; the keys in it die with the server anyway
            pass

    def _replace(self, data: bytes) -> None:
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)  # mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            temporary.replace(self.path)
        except OSError:
            temporary.unlink()
            raise

    def _read(self, limit: int) -> bytes:
        """The first bytes of a file; a symbolic link is refused, and a pipe does not make us wait. Raises OSError."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit)
