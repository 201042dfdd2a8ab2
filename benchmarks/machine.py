"""The facts about the machine without which figures mean nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import psutil


def describe_machine() -> str:
    """Processor, cores, memory, versions, and how busy the machine is now, in one line."""
    memory = psutil.virtual_memory().total / 2**30
    parts = [
        processor_name(Path("/proc/cpuinfo").read_text()) or platform.machine(),
        f"{os.cpu_count()} cores",
        f"{memory:.0f} GiB",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        wrk_version(),
        f"load average before the run {os.getloadavg()[0]:.1f}",
    ]
    return ", ".join(parts)


def processor_name(cpuinfo: str) -> str:
    found = re.search(r"^model name\s*:\s*(.+?)\s*$", cpuinfo, re.MULTILINE)
    return found[1] if found else ""


def wrk_version() -> str:
    """wrk prints its version with its usage, and exits with 1."""
    shown = subprocess.run(["wrk", "-v"], capture_output=True, text=True)
    found = re.search(r"\d+(\.\d+)+", shown.stdout + shown.stderr)
    return f"wrk {found[0]}" if found else "wrk"
