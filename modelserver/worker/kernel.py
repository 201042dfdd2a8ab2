"""What only the kernel can tell or promise about a process. Elsewhere than on Linux the promises are not made."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

CAN_FORK = sys.platform == "linux"  # elsewhere system libraries may break in a forked child


def die_with_parent() -> None:
    """SIGKILL this process as soon as its parent is gone."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def count_threads() -> int:
    """Threads of this process, those of native libraries included; 1 where the kernel does not say."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 1
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:")), 1)


def children(parent: int | None = None) -> list[int]:
    """Pids of the children of a process, of this one by default; empty where the kernel does not say."""
    pid = parent or os.getpid()
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def ends(pid: int) -> bool:
    """Whether the main thread of a process has ended; False where the kernel does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return False


def watch(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where the kernel offers none.

    Raises ProcessLookupError if there is no such process.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None


def prefer_as_victim(margin: int = 300) -> None:
    """Let the out-of-memory killer take this process rather than the frontend; `margin` of 1000 points."""
    adjustment = Path("/proc/self/oom_score_adj")
    try:
        adjustment.write_text(str(min(int(adjustment.read_text()) + margin, 1000)))
    except OSError:
        pass  # not Linux, or a sandbox that forbids it
