"""cProfile around the batches of a worker, for `TS_BENCHMARK`."""

from __future__ import annotations

import cProfile
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_A = TypeVar("_A")
_R = TypeVar("_R")


def profiling_asked() -> bool:
    """Whether the environment asks for it."""
    return os.environ.get("TS_BENCHMARK", "") in ("True", "true", "TRUE")


class ProfileFile:
    """The profile of the last call, in `tsPythonProfile.prof` of the temporary directory.

    The first worker has that name for as long as it lives, others put their process id behind it.
    """

    def __init__(self) -> None:
        self._path = Path(os.environ.get("TMPDIR") or "/tmp", "tsPythonProfile.prof")
        descriptor = os.open(
            self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600
        )  # locked until the process ends
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            self._path = self._path.with_name(f"{self._path.name}.{os.getpid()}")

    def run(self, function: Callable[[_A], _R], argument: _A) -> _R:
        """Call the function, and write down where its time went."""
        profile = cProfile.Profile()
        try:
            return profile.runcall(function, argument)
        finally:
            profile.dump_stats(self._path)
