"""The file that names the running server: one server per temporary directory."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

# Inert argument of the server process, by which supervisors and the check below know it.
MARKER: Final = "org.pytorch.serve.ModelServer"

_POLL: Final = 0.05  # seconds between looks at a process that ends, or at a lock
_PATIENCE: Final = 30.0  # seconds for another command to be done; others may lock a temporary directory, too
_LOOKS: Final = 5  # at a process without a command line: it has none yet while it becomes another program


class OrphanPidFile(Exception):
    """The file names a process that is gone, or nothing at all."""


def location() -> Path:
    """Path of the pid file; the directory follows TMPDIR, TEMP and TMP."""
    return Path(tempfile.gettempdir(), ".model_server.pid")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """No other command looks at the file or writes it in this block, so that of two starts one sees the other's server.

    The lock is that of the directory, because the file comes and goes. It ends when this process becomes another
    program. Where there are no locks, or somebody keeps it, the block runs without.
    """
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # one that may not be read, which a file can be in all the same
        yield
        return
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL)
        except OSError:  # a file system without them
            return
        else:
            return


def running_server(path: Path) -> int | None:
    """Process id of the live server; None without a file, or if the id now belongs to another program.

    Raises OrphanPidFile.
    """
    try:
        text = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    if not (text.isdigit() and len(text) < 10 and int(text) > 0):
        raise OrphanPidFile(path)
    pid = int(text)
    return pid if MARKER in _command_line(pid, path) else None


def write(path: Path, pid: int) -> None:
    """Name the server; does not follow a symbolic link that somebody put there. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "w") as file:
        file.write(str(pid))


def wait_for_end(pid: int, limit: float) -> bool:
    """Wait for the end of a process that need not be a child; False if it still lives after `limit` seconds."""
    import psutil

    deadline = time.monotonic() + limit
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL)
    except psutil.NoSuchProcess:
        pass
    return True


def _command_line(pid: int, path: Path) -> list[str]:
    import psutil  # only where there is a pid file: every start of the command would pay for it

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            raise OrphanPidFile(path)
        for _ in range(_LOOKS):
            if command := process.cmdline():
                return command
            time.sleep(_POLL)
        return []
    except psutil.NoSuchProcess:
        raise OrphanPidFile(path) from None
    except psutil.AccessDenied:
        return []
