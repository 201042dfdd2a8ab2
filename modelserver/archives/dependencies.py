"""The Python packages that a model brings: installed beside it, or into a virtual environment.

They are installed once for all models that want the same (`environments.py`); a model's own directory gets links.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Final, Self

from modelserver.archives.archive import Archive
from modelserver.archives.environments import Environments, fingerprint, folders_for
from modelserver.archives.programs import Outcome, Programs
from modelserver.archives.requirements import NotShareable, facts_of, folder_facts
from modelserver.errors import Cause, Certificate, ModelError
from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings
from modelserver.settings.worker_environment import worker_environment

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
    cache: Path | None = None  # folder for environments; None: the user's cache, or the temporary directory
    wheels: Path | None = None  # the only folder that packages may come from; None: where pip is configured to look

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str]) -> Self:
        """What the settings say; `environ` is the server's."""
        return cls(
            enabled=settings.install_py_dep_per_model,
            temp_dir=settings.temp_dir,
            environment={**environ, **worker_environment(settings)},
            hidden=settings.blacklist_env_vars,
            cache=settings.environment_cache,
            wheels=settings.wheel_directory,
        )

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
            environments=Environments(folders_for(self.cache, self.temp_dir, self.environment)),
            wheels=self.wheels,
        )

    def _environment(self, archive: Archive, python_path: Sequence[str]) -> dict[str, str]:
        """The worker's environment, with a place for temporary files that goes with the installation."""
        complete = {
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",  # a question to the network, and its answer among the last lines
            **self.environment,
            "PYTHONPATH": os.pathsep.join(python_path),
            "TMPDIR": str(_scratch(archive)),
        }
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)} if self.wheels else {}
        kept = {name: text for name, text in complete.items() if not (self.hidden and self.hidden.fullmatch(name))}
        return {**kept, **offline}


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
        environments: Environments,
        wheels: Path | None,
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
        self._environments = environments
        self._wheels = wheels
        self._programs = Programs()

    def run(self) -> str:
        """Install everything; returns the interpreter that the workers need, "" if any will do.

        Raises ModelError, and Stopped if it was. The model's own directory gets what was installed, or links to it.
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
        if self._requirements:
            self._check_requirements()
        self._check_venv()
        key = self._key()
        if not key:
            self._fill(self._target)
        else:
            contents, reused = self._environments.take(key, self._target, self._fill, self._programs.pause)
            self._adopt(contents, reused=reused)
        if self._use_venv:
            self._note("INFO", f"Created virtual environment for model {self._model}: {self._venv}")
        if self._requirements:
            self._note("INFO", f"Installed custom pip packages for model {self._model}")
        return str(self._venv / "bin" / "python") if self._use_venv else ""

    def _check_requirements(self) -> None:
        stated = PurePosixPath(self._requirements)
        if stated.is_absolute() or ".." in stated.parts:
            text = f"ERROR: the requirements file {stated} is not in the model directory"
            raise self._pip_failed(Outcome(1, text))

    def _check_venv(self) -> None:
        """A directory model of that name is a link in its place, and a file of the archive may be there."""
        if not self._use_venv:
            return
        if not self._is_inside(self._venv):
            raise ModelError(f"Invalid python venv path for model {self._model}: {self._venv}")
        if self._venv.exists() and not self._venv.is_dir():
            raise self._venv_failed(Outcome(1, f"ERROR: there is a file in its place: {self._venv}"))

    def _key(self) -> str:
        """The name of the environment that this model can share, "" if it needs one of its own.

        One without requirements is for handlers that install something themselves, which is nobody else's business.
        """
        if not self._requirements:
            return ""
        try:
            return fingerprint(*self._facts())
        except NotShareable:
            return ""

    def _facts(self) -> Iterator[str]:
        """Everything that decides what pip installs, and for whom."""
        yield from _interpreter(self._python, self._environment)
        yield "venv" if self._use_venv else "beside"
        yield from facts_of(self._directory / self._requirements, self._directory)
        yield from (f"{name}={text}" for name, text in sorted(self._environment.items()) if name.startswith("PIP_"))
        if self._wheels is not None:
            yield from folder_facts(self._wheels)
        if self._use_venv:  # pip leaves out what is inherited
            yield from sorted(f"{package.name}=={package.version}" for package in distributions())

    def _adopt(self, contents: Path, *, reused: bool) -> None:
        """Link to what is installed elsewhere; like pip, take the place of what has the same name."""
        if reused:
            self._note("INFO", f"Packages for model {self._model} have been installed before: {contents}")
        # Not the compiled modules: those of the model's own files would land beside them, and meet other models'.
        for entry in (entry for entry in contents.iterdir() if entry.name != "__pycache__"):
            link = self._target / entry.name
            if link == self._directory:
                raise ModelError(f"Invalid 3rd party package installation path {link}")
            if link.is_dir() and not link.is_symlink():
                shutil.rmtree(link)
            else:
                link.unlink(missing_ok=True)
            link.symlink_to(entry)

    def _fill(self, place: Path) -> None:
        """Make the environment in this directory."""
        interpreter = self._make_venv(place / "venv") if self._use_venv else ""
        if self._requirements:
            self._install_requirements(interpreter, place)

    def _make_venv(self, venv: Path) -> str:
        """Make a virtual environment that sees the server's packages; returns its interpreter."""
        outcome = self._run([self._python, "-m", "venv", "--clear", str(venv)])
        if outcome.status:
            raise self._venv_failed(outcome)
        interpreter = venv / "bin" / "python"
        if not interpreter.exists():
            raise ModelError(f"Invalid python venv runtime path for model {self._model}: {interpreter}")
        inherit_packages(venv, _parent_packages())
        return str(interpreter)

    def _install_requirements(self, interpreter: str, place: Path) -> None:
        """pip, into the virtual environment whose interpreter is given, or into the directory if none is."""
        how = ["--upgrade-strategy", "only-if-needed"] if interpreter else ["-t", str(place)]
        command = [interpreter or self._python, "-m", "pip", "install", "-U", *how]
        outcome = self._run([*command, "-r", str(self._directory / self._requirements)])
        if outcome.status:
            raise self._pip_failed(outcome)

    @property
    def _venv(self) -> Path:
        return self._target / "venv"

    def _run(self, command: Sequence[str]) -> Outcome:
        return self._programs.run(command, self._directory, self._environment, self._scratch)

    def _is_inside(self, path: Path) -> bool:
        """Whether it lies below the server's temporary directory, whatever links lead there."""
        return path.resolve().is_relative_to(self._temp_dir.resolve())

    def _venv_failed(self, outcome: Outcome) -> ModelError:
        heading = f"Virtual environment creation for model {self._model} at {self._venv} failed"
        return self._failed(f"Virtual environment creation failed for model {self._model}", heading, outcome)

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


def _interpreter(python: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The interpreter that a command stands for, and what tells it from the next release in the same place."""
    path = Path(shutil.which(python, path=environment.get("PATH")) or python)
    yield str(path)
    with suppress(OSError):
        facts = path.stat()
        yield f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}"


def _scratch(archive: Archive) -> Path:
    """Temporary files of an installation: beside the model, on the same file system."""
    root = archive.location.root
    return root.with_name(f"{root.name}.install")


def _headline(lines: Sequence[str]) -> str:
    """The last line that calls itself an error, or the last one."""
    errors = [line for line in lines if line.startswith("ERROR:")]
    line = (errors or list(lines) or ["no output"])[-1]
    return line.removeprefix("ERROR:").strip()
