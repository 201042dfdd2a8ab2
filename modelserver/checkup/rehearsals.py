"""Trials of handlers: each in a process of its own, set up like a worker, with a limit of time. Everything blocks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

import msgspec

from modelserver.archives.archive import Archive
from modelserver.archives.dependencies import Dependencies
from modelserver.archives.programs import Outcome, Programs, Stopped
from modelserver.settings.model_options import ModelOptions
from modelserver.settings.table import Settings
from modelserver.settings.worker_environment import worker_environment
from modelserver.wire.control import Spawn
from modelserver.wire.frames import Failure, Load

_INSTALLATION_LIMIT: Final = 600  # s
_ENTRY: Final = Path(__file__).parent.parent / "worker" / "__main__.py"


class TookTooLong(Exception):
    """Something that was given a time has not ended within it."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.remedy = remedy


class Stoppable(Protocol):
    """What another thread can end."""

    def stop(self) -> None:
        """End it now."""


class Rehearsals:
    """What all trials of one check share; safe to use from several threads at once."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], scratch: Path) -> None:
        """`scratch` is a private directory."""
        self._settings = settings
        self._environ = environ
        self._scratch = scratch
        self._dependencies = Dependencies.of(settings, environ)
        self._running: set[Stoppable] = set()
        self._stopped = False

    def install(self, archive: Archive, options: ModelOptions) -> Archive:
        """Install what the archive brings, as a start would; returns it with the interpreter its workers need.

        Raises ModelError, TookTooLong, Stopped.
        """
        path = self._python_path(archive)
        installation = self._dependencies.installation(
            archive, runtime=options.runtime, use_venv=options.use_venv, python_path=path
        )
        if installation is None:
            return archive
        text = f"installing the packages takes longer than {_INSTALLATION_LIMIT} s"
        late = TookTooLong(text, "Install them where the server runs, or from wheels that lie near.")
        with self._limited(installation, _INSTALLATION_LIMIT, late):
            return replace(archive, python=installation.run())

    def failures(self, archive: Archive, options: ModelOptions) -> list[Failure]:
        """What keeps a worker from importing the handler: nothing, or one failure. Raises TookTooLong, Stopped."""
        programs = Programs()
        with TemporaryDirectory(dir=self._scratch) as folder:
            order = self._order(archive)
            Path(folder, "order").write_bytes(msgspec.msgpack.encode((order, self._load(archive, options))))
            command = [archive.python or _interpreter(options), "-P", str(_ENTRY), "rehearsal", folder]
            text = f"importing the handler takes longer than {options.startup_timeout} s (startupTimeout)"
            late = TookTooLong(text, "Do what takes so long in initialize, or raise startupTimeout.")
            with self._limited(programs, options.startup_timeout, late):
                outcome = programs.run(command, archive.directory, self._environment(order), Path(folder))
            return _answer(Path(folder, "answer"), outcome)

    def stop(self) -> None:
        """End everything that runs; nothing begins any more. For any thread."""
        self._stopped = True
        for one in list(self._running):
            one.stop()

    @contextmanager
    def _limited(self, work: Stoppable, seconds: float, late: TookTooLong) -> Iterator[None]:
        """Stops the work when its time is over. Raises `late` then, Stopped if all of them were stopped."""
        timer = threading.Timer(seconds, work.stop)
        self._running.add(work)
        timer.start()
        try:
            if self._stopped:
                raise Stopped
            yield
        except Stopped:
            if self._stopped:
                raise
            raise late from None
        finally:
            timer.cancel()
            self._running.discard(work)

    def _order(self, archive: Archive) -> Spawn:
        added = worker_environment(self._settings)
        return Spawn(
            slot=0,
            generation=0,
            rank=0,
            socket="",
            token="",
            title=f"rehearsal of {archive.model_name}",
            cwd=str(archive.directory),
            python_path=list(self._python_path(archive)),
            environment=added,
            hidden=self._hidden({*self._environ, *added, "PYTHONPATH"}),
            threads=0,
        )

    def _load(self, archive: Archive, options: ModelOptions) -> Load:
        return Load(
            model_name=archive.model_name,
            model_dir=str(archive.directory),
            handler=archive.handler,
            batch_size=max(1, options.batch_size),
            gpu=None,
            envelope=self._settings.service_envelope,
            limit_max_image_pixels=self._settings.limit_max_image_pixels,
            max_response_size=self._settings.max_response_size,
            metrics_config=str(self._settings.metrics_config),
        )

    def _python_path(self, archive: Archive) -> tuple[str, ...]:
        inherited = self._environ.get("PYTHONPATH", "").split(os.pathsep)
        return archive.worker_path([entry for entry in inherited if entry])

    def _hidden(self, names: set[str]) -> list[str]:
        pattern = self._settings.blacklist_env_vars
        return sorted(name for name in names if pattern.fullmatch(name)) if pattern else []

    def _environment(self, order: Spawn) -> dict[str, str]:
        """The model's directories come onto the search path in the process itself, after the imports of ours."""
        complete = {**self._environ, **order.environment}
        return {name: text for name, text in complete.items() if name not in order.hidden}


def _interpreter(options: ModelOptions) -> str:
    return "python3" if options.runtime == "python3" else sys.executable


def _answer(path: Path, outcome: Outcome) -> list[Failure]:
    """What the process has said; one that has ended without a word has not imported its handler."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=list[Failure])
    except (OSError, msgspec.DecodeError):
        last = outcome.output.splitlines()[-1:]
        detail = f"the process ended with status {outcome.status}"
        return [Failure("process exited", ": ".join([detail, *last]), outcome.output)]
