"""One log file: appended to, rolled by day and size, and patient with a disk that fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from modelserver.telemetry.archives import Archives
from modelserver.telemetry.clock import Clock

SIZE_LIMIT: Final = 100 << 20  # bytes
RETRY: Final = 10.0  # seconds between attempts after a failure
REMINDER: Final = 3600.0  # seconds between complaints about the same failure


class LogFile:
    """The writing end of one file. Failures are told to `complain`, not again and again, and never raised."""

    def __init__(self, path: Path, clock: Clock, complain: Callable[[str], None], size_limit: int = SIZE_LIMIT) -> None:
        self.path = path
        self._clock = clock
        self._complain = complain
        self._size_limit = size_limit
        self._archives = Archives(path)
        self._descriptor = -1
        self._size = 0
        self._day = ""
        self._retry_at = 0.0
        self._complaint = ""
        self._complain_again_at = 0.0
        self._open()

    def write(self, text: bytes) -> None:
        """Append whole lines; they are lost while the file cannot be written."""
        if self._descriptor < 0 and (self._clock.monotonic() < self._retry_at or not self._open()):
            return
        if self._due(len(text)):
            self._roll()
        if self._descriptor >= 0:
            self._append(text)

    def close(self) -> None:
        """Close the file. What is being packed goes on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def wait_for_archives(self) -> None:
        """Return when no archive is being packed."""
        self._archives.wait()

    def _open(self) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            present = os.fstat(self._descriptor)
        except OSError as error:
            self._fail(f"Unable to create file {self.path}: {error.strerror}")
            return False
        self._size = present.st_size
        self._day = self._clock.date(present.st_mtime if present.st_size else self._clock.now())[:10]
        return True

    def _append(self, text: bytes) -> None:
        rest = memoryview(text)
        try:
            while rest:
                written = os.write(self._descriptor, rest)
                self._size += written
                rest = rest[written:]
        except OSError as error:
            self.close()
            self._fail(f"Unable to write to file {self.path}: {error.strerror}")

    def _due(self, more: int) -> bool:
        today = self._today()
        if not self._size:
            self._day = today
            return False
        outgrown = self._day != today or self._size + more > self._size_limit
        # While the last archive is being packed the file grows on: a second one behind it would only pile up.
        return outgrown and not self._archives.busy and self._clock.monotonic() >= self._retry_at

    def _roll(self) -> None:
        try:
            self._archives.add(self._day)
        except OSError as error:
            self._fail(f"Unable to roll file {self.path}: {error.strerror}")
            return
        self.close()
        self._open()

    def _today(self) -> str:
        return self._clock.date(self._clock.now())[:10]

    def _fail(self, message: str) -> None:
        now = self._clock.monotonic()
        self._retry_at = now + RETRY
        if message != self._complaint or now >= self._complain_again_at:
            self._complaint, self._complain_again_at = message, now + REMINDER
            self._complain(message)
