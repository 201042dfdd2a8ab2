"""Processes that fall to the frontend when the nursery dies: found, killed and reaped."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

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
    """Kill and reap a nursery with its workers, and what these have left in their sessions; blocks.

    Returns how each of `workers` ended, as far as it could be reaped.
    """
    nursery.kill()
    nursery.wait()  # its children are ours only when this returns
    exits = {pid: status for pid in workers if (status := _kill_and_reap(pid)) is not None}
    sessions = {nursery.pid, *workers}
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and (left := [pid for pid in _children() if _session_of(pid) in sessions]):
        for pid in left:
            _kill_and_reap(pid)
    return exits


def _kill_and_reap(pid: int) -> Exit | None:
    """None if the process is not our child, or does not end in time."""
    if pid not in _children():
        return None  # the nursery has reaped it, and the number may be anybody's by now
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
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


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1
