"""Signals whose effect a test relies on: a process dies or stands still a while after it was told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from harness.server import ended, eventually


def kill(*pids: int) -> None:
    """SIGKILL; returns when all of them are dead, whether somebody has reaped them or not. Who is gone stays so."""
    processes = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
            processes[-1].kill()
    eventually(lambda: all(map(ended, processes)))


def suspend(pid: int) -> None:
    """SIGSTOP; returns when the process stands still. Raises NoSuchProcess."""
    process = psutil.Process(pid)
    process.suspend()
    eventually(lambda: process.status() == psutil.STATUS_STOPPED)


@contextmanager
def suspended(pid: int) -> Iterator[None]:
    """The process stands still within, and goes on afterwards if it lives. Raises NoSuchProcess."""
    suspend(pid)
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).resume()
