"""Environments that models share: made once for the same interpreter and requirements, reused by all who want the same.

Each is a directory `<key>` with `contents`, a folder `users` of links to the model directories that lean on it, and a
file `complete`, which is written last: without it the rest is rubbish. `<key>.lock` is locked by whoever looks at it,
also while it is being made. So several servers, and any number of registrations at once, share one folder safely.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

Pause = Callable[[float], None]  # waits so many seconds, or raises

_POLL: Final = 0.1  # seconds between two attempts to lock: a thread inside flock could not be told to stop
_COMPLETE, _CONTENTS, _USERS = "complete", "contents", "users"


class Unusable(OSError):
    """A folder that environments cannot be kept in."""


class Environments:
    """The environments in the first of these folders that can be written to by us alone."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def take(self, key: str, user: Path, make: Callable[[Path], None], pause: Pause = time.sleep) -> tuple[Path, bool]:
        """The contents of an environment, and whether they were there before; kept as long as the path `user` exists.

        Makes them by `make`, which gets an empty directory; what it raises passes, and leaves nothing. Raises OSError.
        """
        place = _usable(self._folders) / key
        with _locked(place, pause):
            if found := (place / _COMPLETE).exists():
                os.utime(place / _COMPLETE)  # the time of its last use
            else:
                _fill(place, make)
            _add_user(place, user)
        return place / _CONTENTS, found

    def prune(self, unused_for: float = 0.0) -> list[Path]:
        """Delete what no model leans on, and has not for that many seconds; returns what it was."""
        cutoff = time.time() - unused_for
        folders = [folder for folder in self._folders if folder.is_dir()]
        keys = [path.with_suffix("") for folder in folders for path in sorted(folder.glob("*.lock"))]
        return [place for place in keys if _remove_unused(place, cutoff)]


def folders_for(chosen: Path | None, temp_dir: Path, environ: Mapping[str, str]) -> list[Path]:
    """Where environments may be kept: the chosen folder, or the user's cache and, failing that, the temporary one."""
    if chosen is not None:
        return [chosen]
    last = temp_dir / f"modelserver-environments-{os.getuid()}"
    home = environ.get("HOME", "")
    cache = environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home else "")  # noqa: PTH118
    return [Path(cache, "modelserver", "environments"), last] if os.path.isabs(cache) else [last]  # noqa: PTH117


def fingerprint(*facts: str) -> str:
    """A name for everything that these facts say."""
    return hashlib.sha256("\0".join(facts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _usable(folders: Sequence[Path]) -> Path:
    reasons = []
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror}")
            continue
        if not (reason := _objection(folder)):
            return folder.resolve()
        reasons.append(f"{folder}: {reason}")
    raise Unusable(f"no folder for environments (setting environment_cache): {'; '.join(reasons)}")


def _objection(folder: Path) -> str:
    """Why what lies in this folder cannot be trusted or changed, "" if it can."""
    facts = folder.stat()
    if facts.st_uid not in (os.getuid(), 0):
        return "belongs to another user"
    if facts.st_mode & stat.S_IWOTH:
        return "can be written to by everybody"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "cannot be written to"


@contextmanager
def _locked(place: Path, pause: Pause) -> Iterator[None]:
    """Hold the lock of an environment. A holder that dies lets go of it."""
    while True:
        descriptor = os.open(_lock_file(place), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _lock(descriptor):
                pause(_POLL)
            if _names(_lock_file(place), descriptor):  # not one that has been deleted meanwhile
                yield
                return
        finally:
            os.close(descriptor)


def _fill(place: Path, make: Callable[[Path], None]) -> None:
    shutil.rmtree(place, ignore_errors=True)  # of one who has not finished
    try:
        (place / _CONTENTS).mkdir(parents=True)
        make(place / _CONTENTS)
        os.sync()  # after a loss of power the mark must not be there without what it stands for
        (place / _COMPLETE).touch()
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _add_user(place: Path, user: Path) -> None:
    """A link that leads nowhere stands for a user that is gone."""
    (place / _USERS).mkdir(exist_ok=True)
    for link in (place / _USERS).iterdir():
        if not link.exists():
            link.unlink(missing_ok=True)
    with suppress(FileExistsError):
        (place / _USERS / fingerprint(str(user))).symlink_to(user.absolute())


def _remove_unused(place: Path, cutoff: float) -> bool:
    """Whether the environment was unused and is gone; one whose lock is held is in use."""
    try:
        descriptor = os.open(_lock_file(place), os.O_RDWR)
    except OSError:
        return False
    try:
        if not (_lock(descriptor) and _names(_lock_file(place), descriptor)) or _is_used(place, cutoff):
            return False
        (place / _COMPLETE).unlink(missing_ok=True)  # first: what is deleted by halves must not look whole
        shutil.rmtree(place, ignore_errors=True)
        _lock_file(place).unlink()
        return not place.exists()
    finally:
        os.close(descriptor)


def _is_used(place: Path, cutoff: float) -> bool:
    try:
        return (place / _COMPLETE).stat().st_mtime > cutoff or any(map(Path.exists, (place / _USERS).iterdir()))
    except FileNotFoundError:
        return False


def _lock_file(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _names(path: Path, descriptor: int) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
