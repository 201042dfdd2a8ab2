"""The accelerators and cores of this machine that we may use, and how busy the accelerators are."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from modelserver.errors import ConfigurationError

UNKNOWN_USAGE: Final = "failed to obtained gpu usage"  # spelt as clients know it
_DETECTION_LIMIT: Final = 30.0  # seconds
_USAGE_LIMIT: Final = 5.0  # seconds a reader of the usage waits for the tool
_USAGE_AGE: Final = 1.0  # seconds

_CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class _Vendor:
    tool: str
    variable: str  # restricts a process to some devices; "" where there is none
    listing: tuple[str, ...]  # arguments: one line a device
    usage: tuple[str, ...] = ()  # arguments: a header and a line of values; `{}` is the device. Empty if not known


_VENDORS: Final = (
    _Vendor(
        "rocm-smi",
        "HIP_VISIBLE_DEVICES",
        ("--showid", "--csv"),
        ("--device", "{}", "--showuse", "--showmemuse", "--csv"),
    ),
    _Vendor(
        "nvidia-smi",
        "CUDA_VISIBLE_DEVICES",
        ("--query-gpu=index", "--format=csv,noheader"),
        ("-i", "{}", "--query-gpu=utilization.gpu,utilization.memory,memory.used", "--format=csv"),
    ),
    _Vendor(
        "xpu-smi", "XPU_VISIBLE_DEVICES", ("discovery", "--dump", "1"), ("dump", "-d", "{}", "-m", "0,5,18", "-n", "1")
    ),
    _Vendor("system_profiler", "", ("-detailLevel", "mini", "SPDisplaysDataType")),
)


@dataclass(frozen=True, slots=True)
class Devices:
    """GPUs in use, in the order in which workers count them."""

    variable: str = ""  # the vendor's visible-devices variable
    names: tuple[str, ...] = ()  # as that variable calls them: indexes, or UUIDs
    usage: tuple[str, ...] = ()  # command that tells how busy one is, `{}` in the place of its name
    warnings: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of GPUs."""
        return len(self.names)

    def first(self, count: int) -> Devices:
        """No more than so many of them."""
        return replace(self, names=self.names[:count])


def find_devices(environ: Mapping[str, str]) -> Devices:
    """What the first vendor tool on PATH reports, less what the vendor's variable hides.

    Never imports torch and never touches a device. Raises ConfigurationError for a variable that names nothing usable.
    """
    for vendor in _VENDORS:
        tool = shutil.which(vendor.tool, path=environ.get("PATH"))
        if tool is None:
            continue
        detected = _count(_output([tool, *vendor.listing], _DETECTION_LIMIT), vendor)
        names = [str(index) for index in range(detected)]
        warnings: tuple[str, ...] = ()
        if vendor.variable in environ:
            names, warnings = _visible(vendor.variable, environ[vendor.variable], detected)
        usage = (tool, *vendor.usage) if vendor.usage else ()
        return Devices(vendor.variable, tuple(names), usage, warnings)
    return Devices()


def _visible(variable: str, text: str, detected: int) -> tuple[list[str], tuple[str, ...]]:
    """Distinct devices that the variable names, and warnings; as for the driver, the first invalid index ends it."""
    names = [name for part in text.split(",") if (name := part.strip())]
    for name in names:
        if not (name.removeprefix("-").isdecimal() or name.startswith(("GPU-", "MIG-"))):
            form = "Invalid format: The env defining visible devices must be integers separated by commas"
            raise ConfigurationError(f"{form}: {variable}={text}")
    distinct = list(dict.fromkeys(names))
    warnings = (f"{variable}={text} names a device twice",) if len(distinct) < len(names) else ()
    invalid = (place for place, name in enumerate(distinct) if _is_index(name) and not 0 <= int(name) < detected)
    return distinct[: next(invalid, len(distinct))] if detected else [], warnings


def _is_index(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _count(listing: str, vendor: _Vendor) -> int:
    if vendor.tool == "system_profiler":
        return int("Total Number of Cores" in listing)  # one device, however many cores it has
    return sum(line.split(",")[0].strip().removeprefix("card").isdecimal() for line in listing.splitlines())


def _output(command: Sequence[str], limit: float) -> str:
    """What a program prints, "" if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=limit, check=True).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


class Gauge:
    """How busy GPUs are, asked of the vendor's tool; an answer is good for a second."""

    def __init__(self, devices: Devices, limit: float = _USAGE_LIMIT) -> None:
        self._devices = devices
        self._limit = limit  # seconds
        self._readings: dict[int, tuple[float, asyncio.Future[str]]] = {}  # GPU -> when it began

    async def read(self, gpus: Collection[int]) -> dict[int, str]:
        """One line for each GPU; a tool that fails, or hangs, has one too."""
        readings = {gpu: self._reading(gpu) for gpu in gpus}
        if readings:
            await asyncio.wait(readings.values(), timeout=self._limit)
        return {gpu: reading.result() if reading.done() else UNKNOWN_USAGE for gpu, reading in readings.items()}

    def _reading(self, gpu: int) -> asyncio.Future[str]:
        """The latest one, or a new one if that is old; a hanging tool is not started a second time."""
        loop = asyncio.get_running_loop()
        begun, reading = self._readings.get(gpu, (0.0, None))
        if reading is None or (reading.done() and loop.time() >= begun + _USAGE_AGE):
            reading = loop.create_future()
            self._readings[gpu] = loop.time(), reading
            # Not a thread of the loop's pool: the end of the server would wait for a tool that hangs in the driver.
            threading.Thread(target=self._ask, args=(gpu, loop, reading), name="gpu usage", daemon=True).start()
        return reading

    def _ask(self, gpu: int, loop: asyncio.AbstractEventLoop, reading: asyncio.Future[str]) -> None:
        name = self._devices.names[gpu] if gpu < len(self._devices.names) else str(gpu)
        command = [part.format(name) for part in self._devices.usage]
        usage = _usage(gpu, _output(command, self._limit) if command else "")
        try:
            loop.call_soon_threadsafe(reading.set_result, usage)
        except RuntimeError:
            pass  # the server has stopped meanwhile


def _usage(gpu: int, table: str) -> str:
    """A header and a line of values, as `name::value` pairs."""
    lines = [line.split(",") for line in table.splitlines() if line.strip()]
    if len(lines) < 2 or len(lines[0]) != len(lines[-1]):
        return UNKNOWN_USAGE
    pairs = [f"{name.strip()}::{value.strip()}" for name, value in zip(lines[0], lines[-1], strict=True)]
    return " ".join([f"gpuId::{gpu}", *pairs])


def count_cpus(cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use: by its affinity, and by the quotas of its control groups (rounded up)."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min([usable, *_quotas(cgroups, membership)]))


def _quotas(cgroups: Path, membership: Path) -> Iterable[int]:
    """Quotas in cores, those of version 2 and of version 1, of the group and of all groups around it."""
    for line in _read(membership).splitlines():
        _, _, place = line.partition(":")
        controllers, _, path = place.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root, quota = (cgroups / "cpu", _quota_v1) if controllers else (cgroups, _quota_v2)
        group = Path(path.lstrip("/"))
        yield from (cores for inner in (group, *group.parents) if (cores := quota(root / inner)))


def _quota_v2(group: Path) -> int:
    return _cores(*_read(group / "cpu.max").split())


def _quota_v1(group: Path) -> int:
    return _cores(_read(group / "cpu.cfs_quota_us").strip(), _read(group / "cpu.cfs_period_us").strip())


def _cores(quota: str = "", period: str = "") -> int:
    """Microseconds of each period; 0 for no limit."""
    return -(-int(quota) // int(period)) if quota.isdecimal() and period.isdecimal() and int(period) else 0


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def responds(command: Sequence[str], environ: Mapping[str, str], limit: float = _DETECTION_LIMIT) -> bool:
    """Whether a program runs and ends with status 0; blocks."""
    try:
        done = subprocess.run(command, env=environ, capture_output=True, stdin=subprocess.DEVNULL, timeout=limit)
    except (OSError, ValueError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
