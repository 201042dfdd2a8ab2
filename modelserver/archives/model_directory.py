"""Makes the directory a model is served from: an unpacked copy of an archive, or a link to an operator's directory."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from modelserver.archives.manifest import FOLDER
from modelserver.archives.unpack import UnsupportedFormat, unpack
from modelserver.errors import InternalError, InvalidModel, ServerError


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """Where a model lives. `root` was made for it and is removed with it; `path` is what the worker gets."""

    root: Path
    path: Path

    def remove(self) -> None:
        """Delete what was made, never what it links to. Does nothing the second time."""
        shutil.rmtree(self.root, ignore_errors=True)


def extract(source: Path, models: Path, url: str) -> ModelDirectory:
    """Unpack an archive into a new directory below `models`.

    Raises InternalError, InvalidModel; nothing stays behind then.
    """
    name = secrets.token_hex(16)
    staging = models / f"{name}.download"
    try:
        staging.mkdir(parents=True)
        unpack(source, staging)
        final = staging.rename(models / name)
        return ModelDirectory(final, final)
    # On damaged archives the readers of the standard library raise a dozen unrelated kinds.
    except Exception as error:
        raise _rendered(error, source, url) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # gone already after success


def link(source: Path, models: Path, url: str) -> ModelDirectory:
    """Link to a model directory in place; its only subdirectory stands in for a directory that holds nothing else.

    Raises InternalError.
    """
    root = models / secrets.token_hex(16)
    try:
        target = _innermost(source.absolute())
        root.mkdir(parents=True)
        path = root / target.name
        path.symlink_to(target, target_is_directory=True)
    except OSError as error:
        shutil.rmtree(root, ignore_errors=True)
        raise _rendered(error, source, url) from error
    return ModelDirectory(root, path)


def _innermost(source: Path) -> Path:
    entries = list(source.iterdir())
    if len(entries) == 1 and entries[0].name != FOLDER and entries[0].is_dir():
        return entries[0]
    return source


def _rendered(error: Exception, source: Path, url: str) -> ServerError:
    if not isinstance(error, UnsupportedFormat):
        return InternalError(f"Failed to save model: {url}")
    kind = InvalidModel if source.name.endswith(".mar") else InternalError
    return kind(f"Failed to save model: {url} ({error})")
