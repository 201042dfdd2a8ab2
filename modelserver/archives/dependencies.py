"""The Python packages that a model brings: installed beside it, or into a virtual environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from modelserver.archives.archive import Archive
from modelserver.archives.programs import Outcome, Programs
from modelserver.errors import Cause, Certificate, ModelError
from modelserver.settings.notices import Notice

_LOGGER: Final = "wlm.ModelManager"
_KEPT_LINES: Final = 20  # of a program's output, in the answer
_PARENT_PACKAGES: Final = "inherited-site-packages.pth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What all installations of one server share."""

    enabled: bool  # requirements of archives are installed; virtual environments are made in any case
    temp_dir: Path  # nothing is installed elsewhere
    environment: Mapping[str, str]  # what workers start from
    hidden: re.Pattern[str] | None  # names, matched as a whole, that are left out of it

    def installation(
        self, archive: Archive, *, runtime: str, use_venv: bool, python_path: Sequence[str]
    ) -> Installation | None:
        """What is to be done before workers of this archive start; None if nothing is."""
        stated = archive.manifest.requirements_file if archive.manifest else None
        requirements = (stated or "") if self.enabled else ""
        if not (requirements or use_venv):
            return None
        return Installation(
            archive,
            temp_dir=self.temp_dir,
            python=runtime if runtime == "python3" else sys.executable,
            use_venv=use_venv,
            requirements=requirements,
            environment=self._environment(archive, python_path),
        )

    def _environment(self, archive: Archive, python_path: Sequence[str]) -> dict[str, str]:
        """The worker's environment, with a place for temporary files that goes with the installation."""
        complete = {
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",  # a question to the network, and its answer among the last lines
            **self.environment,
            "PYTHONPATH": os.pathsep.join(python_path),
            "TMPDIR": str(_scratch(archive)),
        }
        return {name: text for name, text in complete.items() if not (self.hidden and self.hidden.fullmatch(name))}


class Installation:
    """One model's packages: `run` blocks, `stop` ends it from another thread. What to log comes as notices."""

    def __init__(
        self,
        archive: Archive,
        *,
        temp_dir: Path,
        python: str,
        use_venv: bool,
        requirements: str,
        environment: Mapping[str, str],
    ) -> None:
        self.notices: list[Notice] = []
        self._model = archive.model_name
        self._directory = archive.directory
        self._target = archive.location.root
        self._scratch = _scratch(archive)
        self._temp_dir = temp_dir
        self._python = python
        self._use_venv = use_venv
        self._requirements = requirements
        self._environment = environment
        self._programs = Programs()

    def run(self) -> str:
        """Install everything; returns the interpreter that the workers need, "" if any will do.

        Raises ModelError, and Stopped if it was. What was installed lies in the model's own directory and goes with it.
        """
        try:
            self._scratch.mkdir()
            return self._install()
        except OSError as error:
            raise self._pip_failed(Outcome(1, f"ERROR: {error}")) from error
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def stop(self) -> None:
        """End what runs; `run` raises then."""
        self._programs.stop()

    def _install(self) -> str:
        if not self._is_inside(self._target):
            raise ModelError(f"Invalid 3rd party package installation path {self._target}")
        interpreter = self._make_venv() if self._use_venv else ""
        if self._requirements:
            self._install_requirements(interpreter)
        return interpreter

    def _make_venv(self) -> str:
        """Make a virtual environment that sees the server's packages; returns its interpreter."""
        venv = self._target / "venv"
        if not self._is_inside(venv):  # a directory model of that name: the link to it
            raise ModelError(f"Invalid python venv path for model {self._model}: {venv}")
        outcome = self._run([self._python, "-m", "venv", "--clear", str(venv)])
        if outcome.status:
            heading = f"Virtual environment creation for model {self._model} at {venv} failed"
            raise self._failed(f"Virtual environment creation failed for model {self._model}", heading, outcome)
        interpreter = venv / "bin" / "python"
        if not (self._is_inside(interpreter.parent) and interpreter.exists()):
            raise ModelError(f"Invalid python venv runtime path for model {self._model}: {interpreter}")
        inherit_packages(venv, _parent_packages())
        self._note("INFO", f"Created virtual environment for model {self._model}: {venv}")
        return str(interpreter)

    def _install_requirements(self, interpreter: str) -> None:
        """pip, into the virtual environment whose interpreter is given, or beside the model if none is."""
        stated = PurePosixPath(self._requirements)
        if stated.is_absolute() or ".." in stated.parts:
            text = f"ERROR: the requirements file {stated} is not in the model directory"
            raise self._pip_failed(Outcome(1, text))
        how = ["--upgrade-strategy", "only-if-needed"] if interpreter else ["-t", str(self._target)]
        command = [interpreter or self._python, "-m", "pip", "install", "-U", *how]
        outcome = self._run([*command, "-r", str(self._directory / stated)])
        if outcome.status:
            raise self._pip_failed(outcome)
        self._note("INFO", f"Installed custom pip packages for model {self._model}")

    def _run(self, command: Sequence[str]) -> Outcome:
        return self._programs.run(command, self._directory, self._environment, self._scratch)

    def _is_inside(self, path: Path) -> bool:
        """Whether it lies below the server's temporary directory, whatever links lead there."""
        return path.resolve().is_relative_to(self._temp_dir.resolve())

    def _pip_failed(self, outcome: Outcome) -> ModelError:
        message = f"Custom pip package installation failed for model {self._model}"
        return self._failed(message, message, outcome)

    def _failed(self, message: str, heading: str, outcome: Outcome) -> ModelError:
        self._note("ERROR", f"{heading}:\n{outcome.output}")
        lines = [line for line in outcome.output.splitlines() if line.strip()]
        certificate = Certificate(
            Cause.DEPENDENCY, _headline(lines), last_output=tuple(lines[-_KEPT_LINES:]), exit_code=outcome.status
        )
        return ModelError(message, certificate=certificate)

    def _note(self, level: str, message: str) -> None:
        self.notices.append(Notice(level, _LOGGER, message))


def inherit_packages(venv: Path, packages: Sequence[str]) -> None:
    """Let a virtual environment find packages in these directories too, after its own."""
    own = sysconfig.get_path("purelib", "venv", {"base": str(venv), "platbase": str(venv)})
    # Not the bare paths: in directories that are added this way .pth files count too, so editable installs are seen.
    lines = [f"import site; site.addsitedir({directory!a})\n" for directory in packages]
    Path(own, _PARENT_PACKAGES).write_text("".join(lines))


def _parent_packages() -> list[str]:
    """Where the interpreter that runs the server finds installed packages."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [*user, *site.getsitepackages()]


def _scratch(archive: Archive) -> Path:
    """Temporary files of an installation: beside the model, on the same file system."""
    root = archive.location.root
    return root.with_name(f"{root.name}.install")


def _headline(lines: Sequence[str]) -> str:
    """The last line that calls itself an error, or the last one."""
    errors = [line for line in lines if line.startswith("ERROR:")]
    line = (errors or list(lines) or ["no output"])[-1]
    return line.removeprefix("ERROR:").strip()
