"""A TorchServe to compare with: in a virtual environment of its own, installed on the first run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

TORCHSERVE_VERSION = "0.12.0"

_ACCESS_LOG_ONLY = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <File name="access" fileName="${env:LOG_LOCATION:-logs}/access_log.log">
      <PatternLayout pattern="%d{ISO8601} - %m%n"/>
    </File>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="info" additivity="false">
      <AppenderRef ref="access"/>
    </Logger>
    <Root level="off"/>
  </Loggers>
</Configuration>
"""


class Unavailable(Exception):
    """A contender that cannot run on this machine."""


def prepare_torchserve(environment: Path, given: Path | None = None) -> Path:
    """The `torchserve` executable of the given environment, or of one made here. Raises Unavailable."""
    if not has_java():
        raise Unavailable("needs Java, and there is none on this machine")
    executable = (given or environment) / "bin" / "torchserve"
    if not executable.exists():
        if given:
            raise Unavailable(f"there is no {executable}")
        _install(environment)
    return executable.absolute()


def prepare_packages(executable: Path, folder: Path, names: Sequence[str]) -> Path:
    """A search path with packages that handlers need, of our own versions, made here. Raises Unavailable.

    They are not put into the environment of TorchServe, which may be somebody's; what that has is not installed again.
    """
    python = executable.with_name("python")
    requirements = [f"{name}=={version(name)}" for name in names]
    wanted, installed = f"{python} {requirements}\n", folder / "installed"
    if not (installed.exists() and installed.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [str(python), "-I", "-m", "pip", "install", "--prefix", str(folder), *requirements]
        log = folder.with_suffix(".install.log")
        with log.open("w") as output:
            if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode:
                raise Unavailable(f"cannot have {', '.join(names)}, see {log}")
        installed.write_text(wanted)
    return next(folder.glob("lib/python*/site-packages")).absolute()


def has_java() -> bool:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("java") is not None or (home is not None and (Path(home) / "bin" / "java").exists())


def write_access_log_config(path: Path) -> Path:
    """A log configuration that leaves only the access log, in its file."""
    path.write_text(_ACCESS_LOG_ONLY)
    return path.absolute()


def _install(environment: Path) -> None:
    """TorchServe with the very torch that modelserver's workers use."""
    torch = version("torch").partition("+")[0]
    requirements = [f"torchserve=={TORCHSERVE_VERSION}", "torch-model-archiver", "pyyaml", "numpy", f"torch=={torch}"]
    python = environment / "bin" / "python"
    log = environment.with_suffix(".install.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(environment)],
            [str(python), "-I", "-m", "pip", "install", *requirements],  # -I: a PYTHONPATH would lend it packages
        ):
            if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode:
                shutil.rmtree(environment, ignore_errors=True)
                raise Unavailable(f"could not be installed, see {log}")
