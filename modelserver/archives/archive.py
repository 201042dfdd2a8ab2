"""One opened archive: everything a registration needs to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modelserver.archives.manifest import Manifest
from modelserver.archives.model_directory import ModelDirectory


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A model ready to be served. Its owner calls `remove` when the model goes."""

    url: str  # as given
    model_name: str
    version: str
    handler: str  # "" if nobody names one
    runtime: str  # `python` or `python3`
    location: ModelDirectory
    manifest: Manifest | None  # None if the archive has none
    config: dict[str, Any]  # the parsed model configuration; {} if there is none or it cannot be used
    config_error: str | None  # text of the ERROR line if it cannot be used
    downloaded: Path | None  # the file in the model store, if the url means one from elsewhere
    reused: bool = False  # that file was there already
    stored_as: str = ""  # its name in the model store, or its absolute path elsewhere
    python: str = ""  # the interpreter of a virtual environment made for the model

    @property
    def directory(self) -> Path:
        """The model directory as the worker sees it: a symbolic link if the model is a directory of the operator."""
        return self.location.path

    @property
    def python_path(self) -> tuple[str, ...]:
        """What the model adds to PYTHONPATH; the handler's folder goes before the inherited part, the rest after it."""
        real = self.directory.resolve()
        paths = [self.directory.parent] if self.directory.is_symlink() else []
        paths.insert(0, real)
        module, colon, _ = self.handler.partition(":")
        folder = real / PurePosixPath(module).parent
        if colon and folder != real:
            paths.insert(0, folder)
        return tuple(str(path) for path in paths)

    def worker_path(self, inherited: Sequence[str]) -> tuple[str, ...]:
        """A handler's own folder, then what the server has inherited, then the model."""
        model = self.python_path
        own = model[:1] if Path(model[0]) != self.directory.resolve() else ()
        return (*own, *inherited, *model[len(own) :])

    def remove(self) -> None:
        """Delete the unpacked copy (or the link); neither the file in the store nor an operator's directory."""
        self.location.remove()

    def remove_download(self) -> None:
        """Delete the copy of the url in the model store, if there is one and if it can be deleted."""
        if self.downloaded is not None:
            remove_file(self.downloaded)

    def discard(self) -> None:
        """Undo the opening: also the file that it fetched goes, but none that was there before."""
        self.remove()
        if not self.reused:
            self.remove_download()


def remove_file(path: Path) -> None:
    """Delete a file. An error of ours on the way out would hide the one that brought us there."""
    with suppress(OSError):
        path.unlink()
