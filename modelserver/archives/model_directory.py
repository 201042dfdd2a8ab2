"""Makes the directory a model is served from: an unpacked copy of an archive, or a link to an operator's directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelserver.archives.manifest import FOLDER
from modelserver.archives.unpack import OverLimit, UnsupportedFormat, unpack
from modelserver.errors import Cause, Certificate, InternalError, InvalidModel, ServerError
from modelserver.scratch import UNRECORDED, Claims


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """Where a model lives. `root` was made for it and is removed with it; `path` is what the worker gets."""

    root: Path  # its name is claimed
    path: Path
    claims: Claims = UNRECORDED

    def remove(self) -> None:
        """Delete what was made, never what it links to. Does nothing the second time."""
        _remove(self.root, self.root.name, self.claims)


def extract(
    source: Path, models: Path, url: str, claims: Claims = UNRECORDED, unpack: Callable[[Path, Path], None] = unpack
) -> ModelDirectory:
    """Unpack an archive into a new directory below `models`.

    Raises InternalError, InvalidModel; nothing stays behind then.
    """
    try:
        root = models / claims.claim(models)
        staging = root.with_name(f"{root.name}.download")
        try:
            staging.mkdir(parents=True)
            unpack(source, staging)
            staging.rename(root)
        except BaseException:
            _remove(staging, root.name, claims)
            raise
    # On damaged archives the readers of the standard library raise a dozen unrelated kinds.
    except Exception as error:
        raise _rendered(error, source, url) from error
    return ModelDirectory(root, root, claims)


def link(source: Path, models: Path, url: str, claims: Claims = UNRECORDED) -> ModelDirectory:
    """Link to a model directory in place; its only subdirectory stands in for a directory that holds nothing else.

    Raises InternalError.
    """
    try:
        target = _innermost(source.absolute())
        root = models / claims.claim(models)
        try:
            root.mkdir(parents=True)
            path = root / target.name
            path.symlink_to(target, target_is_directory=True)
        except OSError:
            _remove(root, root.name, claims)
            raise
    except OSError as error:
        raise _rendered(error, source, url) from error
    return ModelDirectory(root, path, claims)


def _remove(directory: Path, claim: str, claims: Claims) -> None:
    """The claim is given up only when nothing is left: what could not be deleted now is tried again later."""
    shutil.rmtree(directory, ignore_errors=True)
    if not os.path.lexists(directory):
        claims.release(claim)


def _innermost(source: Path) -> Path:
    entries = list(source.iterdir())
    if len(entries) == 1 and entries[0].name != FOLDER and entries[0].is_dir():
        return entries[0]
    return source


def _rendered(error: Exception, source: Path, url: str) -> ServerError:
    message = f"Failed to save model: {url}"
    if isinstance(error, UnsupportedFormat):
        kind = InvalidModel if source.name.endswith(".mar") else InternalError
        return kind(f"{message} ({error})")
    if isinstance(error, OSError):
        certificate = Certificate(Cause.STORAGE, f"{error.strerror or error}: {error.filename or source}")
    elif isinstance(error, OverLimit):
        certificate = Certificate(Cause.BAD_ARCHIVE, str(error))
    else:
        certificate = Certificate(Cause.BAD_ARCHIVE, f"{type(error).__name__}: {error}")
    return InternalError(message, certificate=certificate)
