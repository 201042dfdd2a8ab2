"""Readings of this machine: processor, memory, disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import psutil

from modelserver.telemetry.records import Reading

_MEGA, _GIGA = 1 << 20, 1 << 30
_WINDOW: Final = 0.1  # seconds that the first look at the processor takes; the next ones see the time since the last


class Processor:
    """How busy all cores together have been since the last look."""

    def __init__(self) -> None:
        self._busy, self._all = 0.0, 0.0

    def percent(self) -> float:
        """Since the last call; blocks for a moment at the first one."""
        if not self._all:
            self._busy, self._all = _cpu_seconds()
            time.sleep(_WINDOW)
        busy, all_ = _cpu_seconds()
        spent, passed = busy - self._busy, all_ - self._all
        self._busy, self._all = busy, all_
        return round(min(100.0, max(0.0, 100 * spent / passed)), 1) if passed > 0 else 0.0


def _cpu_seconds() -> tuple[float, float]:
    """Busy, and busy or idle, since the machine started; guests are contained in the time of users."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - idle, total


def read_host(processor: Processor) -> Iterator[Reading]:
    """Everything but GPUs. Blocks; raises what psutil raises where the system does not tell."""
    disk, memory = psutil.disk_usage("/"), psutil.virtual_memory()
    yield Reading("CPUUtilization", processor.percent())
    yield Reading("DiskAvailable", disk.free / _GIGA)
    yield Reading("DiskUsage", disk.used / _GIGA)
    yield Reading("DiskUtilization", disk.percent)
    yield Reading("MemoryAvailable", memory.available / _MEGA)
    yield Reading("MemoryUsed", memory.used / _MEGA)
    yield Reading("MemoryUtilization", memory.percent)
