"""The end of process groups, but for those in them that clean up after the others.

A *caretaker* waits for the end of everybody whom it serves, and removes then what belongs to no process, as named
segments of shared memory do. Python's `multiprocessing` and torch start one where they need it. Killed with its
group, it would leave all that behind for ever.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

GRACE: Final = 1.0  # seconds for a caretaker, once all others in its group have been killed

# The programs that `multiprocessing`, and others in its manner, give to an interpreter.
_TRACKER: Final = re.compile(rb"from [\w.]+\.resource_tracker import main\b")
_SEGMENT_MANAGER: Final = b"torch_shm_manager"


def kill_groups(groups: Collection[int]) -> list[int]:
    """SIGKILL process groups but for their caretakers. Returns a descriptor of each of these, as `dismiss` takes them.

    Groups that are gone are passed over. Elsewhere than on Linux there is no way to tell caretakers.
    """
    tended = {group for pid, group in _members(groups) if is_caretaker(pid)}
    for group in groups:
        _signal_group(group, signal.SIGSTOP if group in tended else signal.SIGKILL)
    return _kill_but_caretakers(tended) if tended else []


def is_caretaker(pid: int) -> bool:
    """Whether a process that has not ended is one."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return command[0].endswith(_SEGMENT_MANAGER) or any(map(_TRACKER.match, command[1:]))


def wait_for(watches: Iterable[int], seconds: float) -> None:
    """Block until all these processes have ended, or the time is over."""
    deadline = time.monotonic() + seconds
    for watch in watches:
        poll = select.poll()
        poll.register(watch, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)


def dismiss(watches: Iterable[int]) -> None:
    """SIGKILL what is left of these processes, and close their descriptors."""
    for watch in watches:
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(watch, signal.SIGKILL)
        os.close(watch)


def end_groups(groups: Collection[int]) -> None:
    """SIGKILL process groups, and their caretakers when their time is over; blocks until then."""
    caretakers = kill_groups(groups)
    wait_for(caretakers, GRACE)
    dismiss(caretakers)


def _kill_but_caretakers(groups: Collection[int]) -> list[int]:
    """For groups that have been stopped, so that nobody in them makes another process or ends by itself."""
    spared = []
    members = [pid for pid, _ in _members(groups)]
    for pid in [*groups, *members]:
        watch = _watch(pid) if pid not in groups and is_caretaker(pid) else None
        if watch is not None:
            spared.append(watch)
            continue
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    for group in groups:
        _signal_group(group, signal.SIGCONT)
    return spared


def _signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _watch(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None  # no descriptors left


def _members(groups: Collection[int]) -> Iterator[tuple[int, int]]:
    """Each process of these groups but their leaders, zombies included, with its group."""
    for pid in psutil.pids() if sys.platform == "linux" else ():
        with suppress(ProcessLookupError):
            if pid not in groups and (group := os.getpgid(pid)) in groups:
                yield pid, group
