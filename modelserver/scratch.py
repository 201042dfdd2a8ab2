"""A server's run directory: private, locked while the server lives, with a record of what it has made elsewhere.

Whoever finds a run directory that nobody has locked removes it with everything it claims: its server is dead. A claim
is a random name. The server gives it to what it makes, and only what carries it in its own name is ever removed.

The lock is on the directory itself, not on a file in it: there is no moment in which a file could be missing, and the
usual cleaners of /tmp keep away from a directory that is locked.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, Self

SOCKET: Final = "w"  # name of the workers' socket
_CLAIMS: Final = "claims"  # one link per claim, to a folder: a link is written as a whole or not at all
_RUN_DIRECTORY: Final = re.compile("ms-[0-9a-f]{16}")
_CLAIM: Final = re.compile("[0-9a-f]{32}")
_TRANSIENT: Final = (errno.EWOULDBLOCK, errno.ENOTEMPTY)
_SOCKET_PATH_LIMIT: Final = 107  # bytes that every kernel takes


class Claims(Protocol):
    """Hands out names for what is to be removed when its owner is dead. Called from several threads at once."""

    def claim(self, folder: Path) -> str:
        """A new name: everything in `folder` whose name contains it belongs to the owner. Raises OSError."""

    def release(self, name: str) -> None:
        """Nothing of that name is there any more."""


class Unrecorded:
    """Hands out names for what its maker always removes itself."""

    def claim(self, folder: Path) -> str:
        """A new name."""
        return secrets.token_hex(16)

    def release(self, name: str) -> None:
        """Nothing was written down."""


UNRECORDED: Final = Unrecorded()


class RunDirectory:
    """The directory of a server that runs: nobody else touches it, nor what it claims, until its process is dead."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor  # holds the lock; no child inherits it

    @classmethod
    def make(cls, temp_dir: Path) -> Self:
        """A new one under `temp_dir`, or under /tmp if a socket's path would get too long there. Raises OSError."""
        temp_dir.mkdir(parents=True, exist_ok=True)
        folder = temp_dir.resolve()
        if len(os.fsencode(_new_path(folder) / SOCKET)) > _SOCKET_PATH_LIMIT:
            folder = Path("/tmp")
        while True:
            path = _new_path(folder)
            path.mkdir(mode=0o700)
            try:
                descriptor = _open_locked(path)
            except (BlockingIOError, FileNotFoundError):
                continue  # a server that starts at the same moment has found it before it was locked, and removes it
            os.mkdir(_CLAIMS, 0o700, dir_fd=descriptor)
            return cls(path, descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def claim(self, folder: Path) -> str:
        """A new name; written down before anything can be made under it. Raises OSError."""
        name = secrets.token_hex(16)
        (self.path / _CLAIMS / name).symlink_to(folder.absolute())
        return name

    def release(self, name: str) -> None:
        """Forget a claim."""
        (self.path / _CLAIMS / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the directory, and whatever it still claims."""
        try:
            _remove(self.path, self._descriptor)
        except OSError:
            pass  # the next server that starts here tries again
        os.close(self._descriptor)


def sweep(folder: Path) -> list[Path]:
    """Remove every run directory in `folder` whose server is dead, with what it claims; returns their paths."""
    try:
        found = [path for path in folder.iterdir() if _RUN_DIRECTORY.fullmatch(path.name)]
    except OSError:
        return []
    return [path for path in found if remove_dead(path)]


def remove_dead(path: Path, patience: float = 0.0) -> bool:
    """Remove a run directory with what it claims, unless its server lives; whether that was done.

    A server that is just being killed, and programs of it that still write, get `patience` seconds to end.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            _remove_unlocked(path)
            return True
        except OSError as error:
            if error.errno not in _TRANSIENT or time.monotonic() >= deadline:
                return False  # gone, not ours, or in a file system that lets us do nothing
        time.sleep(0.01)


def _new_path(folder: Path) -> Path:
    return folder / f"ms-{secrets.token_hex(8)}"


def _open_locked(path: Path) -> int:
    """Descriptor of a new directory. Raises BlockingIOError, FileNotFoundError if somebody removes it already."""
    descriptor = _open_directory(path)
    try:
        _lock(path, descriptor)
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        raise
    except OSError:
        pass  # a file system without locks: nobody can lock it, so nobody will remove it
    return descriptor


def _open_directory(path: Path | str, inside: int | None = None) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=inside)


def _lock(path: Path, descriptor: int) -> None:
    """Raises BlockingIOError if it is locked, FileNotFoundError if it was removed or exchanged in the meantime."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if not os.path.samestat(os.fstat(descriptor), path.lstat()):
        raise FileNotFoundError


def _remove_unlocked(path: Path) -> None:
    """Raises BlockingIOError if its server lives, OSError if it is gone, not ours or cannot be removed."""
    descriptor = _open_directory(path)
    try:
        if not _is_own(descriptor):
            raise PermissionError
        _lock(path, descriptor)
        _remove(path, descriptor)
    finally:
        os.close(descriptor)


def _is_own(descriptor: int) -> bool:
    facts = os.fstat(descriptor)
    return facts.st_uid == os.geteuid() and facts.st_mode & 0o777 == 0o700


def _remove(path: Path, descriptor: int) -> None:
    """Remove a directory that the caller has locked; it stays, with the claim, if something it claims cannot go."""
    for name in os.listdir(descriptor):
        if name != _CLAIMS:
            _delete(path / name)
    with suppress(FileNotFoundError):
        claims = _open_directory(_CLAIMS, descriptor)
        try:
            _remove_claims(claims)
        finally:
            os.close(claims)
        os.rmdir(_CLAIMS, dir_fd=descriptor)
    path.rmdir()


def _remove_claims(claims: int) -> None:
    for name in filter(_CLAIM.fullmatch, os.listdir(claims)):
        folder = Path(os.readlink(name, dir_fd=claims))
        for path in _named(folder, name):
            _delete(path)
        if not _named(folder, name):
            os.unlink(name, dir_fd=claims)


def _named(folder: Path, name: str) -> list[Path]:
    """What has the name in the folder; nothing if the folder is not an absolute path without turns, or is gone."""
    if not folder.is_absolute() or ".." in folder.parts:
        return []
    try:
        return [path for path in folder.iterdir() if name in path.name]
    except OSError:
        return []


def _delete(path: Path) -> None:
    """Remove a file, a link (never what it leads to) or a directory, if it is this user's."""
    with suppress(OSError):
        facts = path.lstat()
        if facts.st_uid != os.geteuid():
            return
        if stat.S_ISDIR(facts.st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
