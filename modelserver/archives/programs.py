"""Programs that an installation runs: nothing they start outlives them, the installation, or this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

OUTPUT_LIMIT: Final = 1 << 16  # bytes that are kept of what a program prints: the last ones

_GUARD: Final = Path(__file__).with_name("guard.py")


class Stopped(Exception):
    """`Programs.stop` was called."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended: exit status (128 + n if signal n killed it) and the end of what it printed."""

    status: int
    output: str


class Programs:
    """Runs one program at a time; `stop` may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def run(self, command: Sequence[str], directory: Path, environment: Mapping[str, str], scratch: Path) -> Outcome:
        """Run a program in `directory` to its end; blocks. `scratch` is where its output lies meanwhile.

        Raises Stopped, and OSError if there is no process to be had.
        """
        # A file, not a pipe: a program left behind that holds the pipe would keep us waiting for its end.
        with tempfile.TemporaryFile(dir=scratch) as output:
            guard = self._start([sys.executable, "-I", "-S", str(_GUARD), *command], directory, environment, output)
            assert guard.stdout is not None
            with guard:
                status = guard.stdout.read()
                self._end(guard)
            if self._stopping.is_set():
                raise Stopped
            return Outcome(int(status or 128 + signal.SIGKILL), _end_of(output))

    def stop(self) -> None:
        """Kill what runs, with all that it has started; nothing runs afterwards."""
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                _kill_group(self._process.pid)

    def pause(self, seconds: float) -> None:
        """Wait for that long. Raises Stopped as soon as `stop` has been called."""
        if self._stopping.wait(seconds):
            raise Stopped

    def _start(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str], output: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopping.is_set():
                raise Stopped
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
            return self._process

    def _end(self, guard: subprocess.Popen[bytes]) -> None:
        """End the guard, and what its program has left behind. Not reaped yet, its number cannot be anybody else's."""
        with self._lock:
            self._process = None
            _kill_group(guard.pid)
        _reap_group(guard.pid)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the latter is macOS's word for processes that have ended
        os.killpg(group, signal.SIGKILL)


def _reap_group(group: int) -> None:
    """The guard, and all others: to a process that adopts orphans, their ends are left when the guard has gone."""
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-group, 0)


def _end_of(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - OUTPUT_LIMIT))
    return output.read().decode("utf-8", "replace").strip()
