"""Starts a server in a process group of its own, and reads what its whole process tree costs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

STOP_PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL
SETTLE_INTERVAL = 0.5  # seconds
SETTLE_LIMIT = 30.0  # seconds
IDLE = 0.05  # share of one core


class ProcessTree:
    """One started server and all its descendants. Its output goes to a file, never to a pipe that nobody reads."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], cwd: Path, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._root = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def running(self) -> bool:
        return self._root.poll() is None

    @property
    def root(self) -> psutil.Process:
        """The process that was started. Raises psutil.NoSuchProcess."""
        return psutil.Process(self._root.pid)

    def processes(self) -> list[psutil.Process]:
        """Root and descendants, also those in sessions of their own; empty once the root is gone."""
        try:
            root = self.root
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu(self) -> float:
        """Seconds of processor time so far, user and system, reaped children included."""
        return sum(self._each(cpu_seconds))

    def clocks(self) -> dict[int, float]:
        """Seconds of processor time by process, exact to the nanosecond, without reaped children."""
        return dict(self._each(lambda process: (process.pid, cpu_clock(process.pid))))

    def reaped_cpu(self) -> float:
        """Seconds of processor time of the children that the processes have reaped."""
        return sum(self._each(lambda process: reaped_seconds(process.cpu_times())))

    def pss(self) -> int:
        """Bytes of memory; a page that n processes share counts one nth in each."""
        return sum(self._each(lambda process: process.memory_full_info().pss))

    def settle(self) -> None:
        """Wait until the tree is idle, so that what follows is not measured against its start."""
        end = time.monotonic() + SETTLE_LIMIT
        before, after = 0.0, self.cpu()
        while after - before > IDLE * SETTLE_INTERVAL and time.monotonic() < end:
            time.sleep(SETTLE_INTERVAL)
            before, after = after, self.cpu()

    def stop(self) -> None:
        """SIGTERM to the group, SIGKILL after a while to whatever is left of group and tree."""
        members = self.processes()
        self._signal_group(signal.SIGTERM)
        _, alive = psutil.wait_procs(members, timeout=STOP_PATIENCE)
        for process in alive:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        self._signal_group(signal.SIGKILL)
        psutil.wait_procs(alive, timeout=STOP_PATIENCE)
        self._root.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._root.pid, number)
        except ProcessLookupError:
            pass

    def _each(self, fact: Callable[[psutil.Process], T]) -> list[T]:
        facts = []
        for process in self.processes():
            try:
                facts.append(fact(process))
            except psutil.NoSuchProcess:
                pass
        return facts


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of one process and of the children it has reaped."""
    times = process.cpu_times()
    return times.user + times.system + reaped_seconds(times)


def reaped_seconds(times: Any) -> float:
    """The children's part of `psutil.Process.cpu_times()`."""
    return float(times.children_user + times.children_system)


def cpu_clock(pid: int) -> float:
    """Seconds of processor time of all threads of a process. Raises psutil.NoSuchProcess.

    Read from the clock that the kernel keeps for every process, because /proc counts in hundredths of a second, which
    is what an idle server takes in many seconds. The clock's number is what clock_getcpuclockid(3) makes of the pid.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        raise psutil.NoSuchProcess(pid) from None
