"""Metrics of the host: processor, memory, disk, GPUs."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from types import ModuleType

import psutil

from ts.metrics.dimension import Dimension
from ts.metrics.metric import Metric

logger = logging.getLogger(__name__)

system_metrics: list[Metric] = []
dimension = [Dimension("Level", "Host")]

_MEGA, _GIGA = 1 << 20, 1 << 30
_GPU_QUERY = ("--query-gpu=memory.used,memory.total,utilization.gpu", "--format=csv,noheader,nounits")


def cpu_utilization() -> None:
    """Percent of the time that the processors are busy."""
    _note("CPUUtilization", psutil.cpu_percent(0.1), "percent")


def memory_used() -> None:
    """Used memory in megabytes."""
    _note("MemoryUsed", psutil.virtual_memory().used / _MEGA, "MB")


def memory_available() -> None:
    """Available memory in megabytes."""
    _note("MemoryAvailable", psutil.virtual_memory().available / _MEGA, "MB")


def memory_utilization() -> None:
    """Percent of the memory that is in use."""
    _note("MemoryUtilization", psutil.virtual_memory().percent, "percent")


def disk_used() -> None:
    """Used space of the root disk in gigabytes."""
    _note("DiskUsage", psutil.disk_usage("/").used / _GIGA, "GB")


def disk_utilization() -> None:
    """Percent of the root disk that is in use."""
    _note("DiskUtilization", psutil.disk_usage("/").percent, "percent")


def disk_available() -> None:
    """Free space of the root disk in gigabytes."""
    _note("DiskAvailable", psutil.disk_usage("/").free / _GIGA, "GB")


def gpu_utilization(num_of_gpu: int) -> None:
    """Memory in percent and megabytes, and use in percent, of each of the first GPUs, as the vendor's tool says."""
    for number, (used, total, busy) in enumerate(_ask_gpus()[:num_of_gpu]):
        labels = [*dimension, Dimension("device_id", str(number))]
        _note("GPUMemoryUtilization", 100 * used / total if total else 0.0, "percent", labels)
        _note("GPUMemoryUsed", used, "MB", labels)
        _note("GPUUtilization", busy, "percent", labels)


def collect_all(mod: ModuleType, num_of_gpu: int) -> None:
    """Call every collecting function of a module, and log what they have found in this one."""
    for name, function in sorted(vars(mod).items()):
        skipped = name.startswith("_") or name in ("gpu_utilization", "collect_all")
        if not skipped and getattr(function, "__module__", "") == mod.__name__:
            function()
    if num_of_gpu > 0:
        gpu_utilization(num_of_gpu)
    for metric in system_metrics:
        logger.info("%s", metric)
    logger.info("")


def _note(name: str, value: float, unit: str, labels: Sequence[Dimension] = dimension) -> None:
    system_metrics.append(Metric(name, value, unit, labels))


def _ask_gpus() -> list[tuple[float, float, float]]:
    """Used and all memory in megabytes, and use in percent, of every GPU; none without the tool."""
    try:
        command = ("nvidia-smi", *_GPU_QUERY)
        text = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        return [(float(used), float(total), float(busy)) for used, total, busy in map(_cells, text.splitlines())]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        logger.error("GPU metrics are not available: %s", error)
        return []


def _cells(line: str) -> list[str]:
    return line.split(",")
