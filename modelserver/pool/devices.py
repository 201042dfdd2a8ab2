"""How many GPUs this machine lets us use."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

from modelserver.errors import ConfigurationError

_QUERIES = (
    ("rocm-smi", ("--showid", "--csv"), "HIP_VISIBLE_DEVICES"),
    ("nvidia-smi", ("--query-gpu=index", "--format=csv,noheader"), "CUDA_VISIBLE_DEVICES"),
)


def count_gpus(environ: Mapping[str, str]) -> int:
    """GPUs that the first vendor tool on PATH reports, or as many of them as the vendor's variable makes visible.

    Never imports torch and never touches a device. Raises ConfigurationError for a variable that names nothing usable.
    """
    for tool, arguments, variable in _QUERIES:
        if (path := shutil.which(tool, path=environ.get("PATH"))) is not None:
            visible = environ.get(variable)
            return _detected([path, *arguments]) if visible is None else len(visible_devices(variable, visible))
    return 0


def visible_devices(variable: str, text: str) -> list[str]:
    """Distinct device names of a visible-devices variable: indexes, or the UUIDs of GPUs and of MIG slices."""
    names = [name for part in text.split(",") if (name := part.strip())]
    for name in names:
        if not (name.isdecimal() or name.startswith(("GPU-", "MIG-"))):
            form = "Invalid format: The env defining visible devices must be integers separated by commas"
            raise ConfigurationError(f"{form}: {variable}={text}")
    return list(dict.fromkeys(names))


def _detected(command: list[str]) -> int:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.split(",")[0].strip().removeprefix("card").isdecimal() for line in done.stdout.splitlines())
