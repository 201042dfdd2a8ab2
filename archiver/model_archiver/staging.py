"""A temporary tree that looks like the archive: its files are links to the artifacts, so nothing is copied twice."""

from __future__ import annotations

import errno
import glob
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SKIPPED_FOLDERS: Final = frozenset({"__MACOSX", "__pycache__"})

_WILDCARDS: Final = ("*", "?")
_logger = logging.getLogger(__name__)


def stage_file(source: Path, tree: Path) -> None:
    """Put a file at the root of the tree, in place of an earlier one of its name.

    Raises FileNotFoundError, IsADirectoryError, and OSError for what is no file either.
    """
    _link(source, tree / source.name)


def stage_extra_files(entries: str, tree: Path) -> None:
    """Put comma-separated files, contents of folders and matches of wildcards at the root of the tree.

    Raises FileNotFoundError for an entry that does not exist, FileExistsError for a subfolder that two folders bring.
    """
    for entry in filter(None, (entry.strip() for entry in entries.split(","))):
        for path in _matches(entry):
            if path.is_dir():
                _stage_content(path, tree)
            elif path.exists():
                stage_file(path, tree)
            else:
                raise FileNotFoundError(f"File does not exist: {path}")


def walk(tree: Path) -> Iterator[tuple[Path, str]]:
    """(file, its path relative to `tree`), sorted, without skipped folders."""
    for folder, subfolders, files in os.walk(tree):
        subfolders[:] = sorted(name for name in subfolders if is_packed_folder(name))
        for name in sorted(files):
            path = Path(folder, name)
            yield path, path.relative_to(tree).as_posix()


def is_packed_folder(name: str) -> bool:
    """False for folders of caches and hidden folders. Hidden files are packed."""
    return not name.startswith(".") and name not in SKIPPED_FOLDERS


def _matches(entry: str) -> list[Path]:
    if not (any(mark in entry for mark in _WILDCARDS) or ("[" in entry and "]" in entry)):
        return [Path(entry)]
    matches = sorted(glob.glob(entry))  # noqa: PTH207 - the entry may be absolute
    if not matches:
        _logger.warning("Given wildcard pattern did not match any file: %s", entry)
    return [Path(match) for match in matches]


def _stage_content(folder: Path, tree: Path) -> None:
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            stage_file(path, tree)
        elif is_packed_folder(path.name):
            _stage_folder(path, tree / path.name)


def _stage_folder(source: Path, target: Path) -> None:
    target.mkdir()
    for path in sorted(source.iterdir()):
        if not path.is_dir():
            _link(path, target / path.name)
        elif is_packed_folder(path.name):
            _stage_folder(path, target / path.name)


def _link(source: Path, target: Path) -> None:
    mode = source.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(source))
    if not stat.S_ISREG(mode):
        raise OSError(f"Not a regular file: {source}")
    target.unlink(missing_ok=True)
    target.symlink_to(source.absolute())
