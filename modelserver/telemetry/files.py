"""One log file: appended to, rolled by time and size, and patient with a disk that fails."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import datetime
from typing import Final

from modelserver.logconfig.plan import FileTarget, Rolling
from modelserver.telemetry.archives import Archives
from modelserver.telemetry.clock import Clock
from modelserver.telemetry.java_dates import finest_unit, ordinal

RETRY: Final = 10.0  # seconds between attempts after a failure
REMINDER: Final = 3600.0  # seconds between complaints about the same failure
LOOK: Final = 1.0  # seconds between looks whether the file is still where it was


class LogFile:
    """The writing end of one file. Failures are told to `complain`, not again and again, and never raised."""

    def __init__(self, target: FileTarget, clock: Clock, complain: Callable[[str], None]) -> None:
        self.path = target.path
        self._clock = clock
        self._complain = complain
        self._roller = _Roller(target, clock) if target.rolling else None
        self._descriptor = -1
        self._size = 0
        self._identity: tuple[int, int] | None = None  # device and inode of a regular file
        self._look_at = 0.0
        self._retry_at = 0.0
        self._complaint = ""
        self._complain_again_at = 0.0
        self._open(0 if target.append else os.O_TRUNC)

    def write(self, text: bytes) -> None:
        """Append whole lines; they are lost while the file cannot be written."""
        if self._descriptor >= 0 and self._clock.monotonic() >= self._look_at:
            self._look()
        if self._descriptor < 0 and (self._clock.monotonic() < self._retry_at or not self._open()):
            return
        if self._roller and self._clock.monotonic() >= self._retry_at and self._roller.due(self._size, len(text)):
            self._roll(self._roller)
        if self._descriptor >= 0:
            self._append(text)

    def close(self) -> None:
        """Close the file. What is being packed goes on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def wait_for_archives(self) -> None:
        """Return when no archive is being packed."""
        if self._roller:
            self._roller.archives.wait()

    def _open(self, flags: int = 0) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # O_NONBLOCK: a named pipe that nobody reads is an error, and not a wait for ever.
            flags |= os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._descriptor = os.open(self.path, flags, 0o644)
            os.set_blocking(self._descriptor, True)
            present = os.fstat(self._descriptor)
        except (OSError, ValueError) as error:  # ValueError: no name of a file
            self._fail(f"Unable to create file {self.path}: {_reason(error)}")
            return False
        self._size = present.st_size
        self._look_at = self._clock.monotonic() + LOOK
        self._identity = _identity(present)
        if self._identity is None:
            self._roller = None  # somebody's /dev/stdout is not ours to rename
        if self._roller:
            self._roller.begin(present.st_mtime if present.st_size else self._clock.now())
        return True

    def _look(self) -> None:
        """Leave a file that somebody has removed or moved away, and note how large one is that somebody has emptied."""
        self._look_at = self._clock.monotonic() + LOOK
        if self._identity is None:
            return
        try:
            present = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self.close()
        except OSError:
            pass  # it can be written all the same
        else:
            if _identity(present) == self._identity:
                self._size = present.st_size
            else:
                self.close()

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

    def _roll(self, roller: _Roller) -> None:
        try:
            roller.roll()
        except (OSError, ValueError) as error:
            self._fail(f"Unable to roll file {self.path}: {_reason(error)}")
            return
        self.close()
        self._open()

    def _fail(self, message: str) -> None:
        now = self._clock.monotonic()
        self._retry_at = now + RETRY
        if message != self._complaint or now >= self._complain_again_at:
            self._complaint, self._complain_again_at = message, now + REMINDER
            self._complain(message)


def _identity(present: os.stat_result) -> tuple[int, int] | None:
    return (present.st_dev, present.st_ino) if stat.S_ISREG(present.st_mode) else None


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class _Roller:
    """Knows when a file is due to be moved away, and moves it."""

    def __init__(self, target: FileTarget, clock: Clock) -> None:
        rolling = target.rolling
        assert rolling is not None
        self._rolling: Rolling = rolling
        self._clock = clock
        self.archives = Archives(target.path, rolling.pattern, rolling.keep)
        self._unit = finest_unit(self.archives.dates)
        self._at_start = rolling.at_start
        self._begun = ""  # ISO date: when the file was begun, or written last before this server
        self._looked = ""  # the second of the last look at the time

    def begin(self, wall: float) -> None:
        """A file is opened that is of that time."""
        self._begun = self._clock.date(wall)
        self._looked = ""

    def due(self, size: int, more: int) -> bool:
        """Whether a file of that size is to be moved away before more is written to it."""
        now = self._clock.date(self._clock.now())
        if not size:
            self._begun, self._at_start = now, False
            return False
        outgrown = bool(self._rolling.size) and size + more > self._rolling.size
        # While the last archive is being packed the file grows on: a second one behind it would only pile up.
        return (outgrown or self._at_start or self._expired(now)) and not self.archives.busy

    def roll(self) -> None:
        """Move the file away. Raises OSError."""
        self.archives.add(datetime.fromisoformat(self._begun.replace(",", ".")))
        self._at_start = False

    def _expired(self, now: str) -> bool:
        """Dates in the pattern change at most once a second; so this is asked no more often."""
        interval = self._rolling.interval
        if not interval or not self._unit or now[:19] == self._looked:
            return False
        begun, current = (ordinal(datetime.fromisoformat(text[:19]), self._unit) for text in (self._begun, now))
        expired = current // interval != begun // interval if self._rolling.modulate else current - begun >= interval
        if not expired:
            self._looked = now[:19]
        return expired
