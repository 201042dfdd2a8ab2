"""Processes that fall to the frontend when the nursery dies: found, killed and reaped."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from modelserver.process_group import GRACE, end_groups, is_caretaker, kill_groups

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 5.0  # seconds for killed processes to vanish; one that hangs in a driver may take longer


class Exit(NamedTuple):
    """How a process ended."""

    status: int  # raw wait status
    max_rss: int  # bytes
    after: int = 0  # pid of the rank whose end this launcher was killed for


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury(nursery: subprocess.Popen[bytes], workers: Collection[int]) -> dict[int, Exit]:
    """Kill and reap a nursery with its workers, and what these have left in their sessions; blocks, but not for ever.

    Returns how each of `workers` ended, as far as it could be reaped.
    """
    nursery.kill()
    try:
        nursery.wait(_PATIENCE)  # its children are ours only when this returns
    except subprocess.TimeoutExpired:
        end_workers(nursery.pid, workers)  # it hangs in the kernel, where no signal reaches it
        return {}
    exits = {pid: status for pid in workers if (status := _kill_and_reap(pid)) is not None}
    _end_sessions({nursery.pid, *workers})
    return exits


def end_workers(parent: int, pids: Collection[int]) -> None:
    """SIGKILL those of these process groups that have a leader, and this parent has not reaped it; blocks a while."""
    groups = [pid for pid in pids if _parent_of(pid) == parent]  # these numbers cannot be anybody else's
    for pid in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)  # forked just now, it may have no group of its own yet
    end_groups(groups)


def status_of_dead(pid: int) -> int | None:
    """Wait status of a process that has ended and is not reaped yet; None if there is none, or no telling."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[49]) if fields[0] in "ZX" else None
    except (OSError, IndexError):
        return None


def _end_sessions(sessions: Collection[int]) -> None:
    """Kill and reap those of our children that belong to these sessions; caretakers come last."""
    began = now = time.monotonic()
    while now < began + _PATIENCE and (left := [pid for pid in _children() if _session_of(pid) in sessions]):
        graceful = now < began + GRACE
        doomed = [pid for pid in left if not (graceful and is_caretaker(pid))]
        for pid in doomed:
            _kill_and_reap(pid)
        if not doomed:
            time.sleep(0.005)
        now = time.monotonic()


def _kill_and_reap(pid: int) -> Exit | None:
    """None if the process is not our child, or does not end in time."""
    if pid not in _children():
        return None  # the nursery has reaped it, and the number may be anybody's by now
    with suppress(ProcessLookupError, PermissionError):
        caretakers = kill_groups([pid])
        for watch in caretakers:
            os.close(watch)  # `_end_sessions` sees to them
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            reaped, status, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if reaped:
            return Exit(status, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        time.sleep(0.005)
    return None


def _children() -> list[int]:
    try:
        return [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    except OSError:
        return []


def _parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1
