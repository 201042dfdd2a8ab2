"""Makes of this process what a worker of the model would be."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from modelserver.archives.archive import Archive
from modelserver.archives.dependencies import Dependencies
from modelserver.archives.limits import Limits
from modelserver.archives.store import ArchiveStore
from modelserver.engine.load import load_frame
from modelserver.settings.model_options import ModelOptions, Requested, resolve
from modelserver.settings.table import Settings
from modelserver.settings.worker_environment import worker_environment
from modelserver.tryout.command_line import Options
from modelserver.wire.frames import Load
from modelserver.worker.fork_or_exec import shadowed


@contextmanager
def opened(options: Options, settings: Settings, temp: Path) -> Iterator[Archive]:
    """The model, unpacked below `temp`; a directory is used where it is. Raises ServerError."""
    path = Path(os.path.abspath(options.archive))  # noqa: PTH100 - a link keeps its name, and thus its format
    limits = Limits(size=settings.max_archive_size, members=settings.max_archive_members)
    store = ArchiveStore(path.parent, temp, [], limits=limits)
    archive = store.open(
        str(path) if path.is_dir() else path.name,
        model_name=options.model_name,
        handler=options.handler,
        default_handler=settings.default_service_handler,
        default_name=path.name.partition(".")[0],
    )
    try:
        yield archive
    finally:
        archive.remove()


def place_of(archive: Archive) -> Path:
    """The model's files; not the link to a directory, which debuggers and tracebacks would name."""
    return archive.directory.resolve()


def equip(archive: Archive, model: ModelOptions, settings: Settings, temp: Path) -> None:
    """Install the packages of the model, where a server with these settings would. Raises ServerError."""
    if archive.manifest is None or not archive.manifest.requirements_file:
        return
    if not settings.install_py_dep_per_model:
        _tell(f"{archive.manifest.requirements_file} is not installed: install_py_dep_per_model is off.")
        return
    if model.use_venv:
        _tell(
            "useVenv is on, but this process has an interpreter already: the packages are installed beside the model."
        )
    dependencies = replace(Dependencies.of(settings, os.environ), temp_dir=temp)
    path = archive.worker_path(_inherited())
    work = dependencies.installation(archive, runtime=model.runtime, use_venv=False, python_path=path)
    if work is not None:
        work.run()


@contextmanager
def as_worker(archive: Archive, settings: Settings) -> Iterator[None]:
    """Environment, search path, working directory and log of a worker; the directory until the end of the block."""
    paths = archive.worker_path(_inherited())
    if hidden := shadowed(archive.python_path, sys.modules):
        _tell(f"{hidden} is not used: this process has another module of its name. A worker would use it.")
    os.environ.update(worker_environment(settings))
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # for programs that the handler starts
    for name in [name for name in os.environ if _is_hidden(name, settings)]:
        del os.environ[name]
    sys.path[:] = [*paths, *(entry for entry in sys.path if entry not in paths)]
    importlib.invalidate_caches()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s", force=True)
    before = Path.cwd()
    os.chdir(place_of(archive))
    try:
        yield
    finally:
        os.chdir(before)


def _inherited() -> list[str]:
    return [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def _is_hidden(name: str, settings: Settings) -> bool:
    return settings.blacklist_env_vars is not None and settings.blacklist_env_vars.fullmatch(name) is not None


def _tell(note: str) -> None:
    print(f"modelserver run-handler: {note}", file=sys.stderr)


def frame_of(archive: Archive, model: ModelOptions, options: Options, settings: Settings) -> Load:
    """What a server would tell a worker to load."""
    frame = load_frame(archive, model, settings, options.gpu)
    frame.model_dir = str(place_of(archive))
    if options.envelope is not None:
        frame.envelope = options.envelope
    return frame


def model_options(archive: Archive, settings: Settings, batch_size: int) -> ModelOptions:
    """As of a registration with this batch size. Tells what is wrong in the model's configuration."""
    model, notices = resolve(
        archive.model_name,
        archive.version,
        Requested(batch_size=batch_size),
        archive.config,
        settings,
        manifest_runtime=archive.runtime,
        gpus=0,
        cpus=1,
        at_startup=False,
        yaml_name=(archive.manifest and archive.manifest.config_file) or "",
    )
    for text in [*filter(None, [archive.config_error]), *(notice.message for notice in notices)]:
        _tell(text)
    return model
