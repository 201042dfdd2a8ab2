"""Turns a freshly forked or exec'd process into the worker it was ordered to be."""

from __future__ import annotations

import importlib
import logging
import os
import random
import signal
import sys
from collections.abc import Mapping
from types import FrameType
from typing import TextIO

import psutil
from setproctitle import setproctitle

from modelserver.wire.control import Spawn
from modelserver.worker import kernel


def environment_of(user: Mapping[str, str], order: Spawn) -> dict[str, str]:
    """The worker's environment: the user's, the order's additions, PYTHONPATH, minus the hidden names."""
    environment = {**user, **order.environment}
    inherited = [entry for entry in user.get("PYTHONPATH", "").split(os.pathsep) if entry]
    path = [*order.python_path, *(entry for entry in inherited if entry not in order.python_path)]
    if path:
        environment["PYTHONPATH"] = os.pathsep.join(path)
    for name in order.hidden:
        environment.pop(name, None)
    return environment


def settle(order: Spawn, environment: Mapping[str, str]) -> None:
    """Give this process everything that makes it a worker, except its streams, its log and its thread settings."""
    kernel.die_with_parent()
    kernel.prefer_as_victim()
    if order.launcher:
        # They arrive blocked, and count until the model has loaded: this is how a launcher ends the other ranks when
        # one cannot start.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    else:
        outlive_group_signals()
    _replace_environment(environment)
    _extend_search_path(order.python_path)
    os.chdir(order.cwd)
    _reseed()
    setproctitle(f"{order.title} {order.socket}")


def make_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` by streams that write every line at once, as UTF-8.

    A stream over a file remembers that it can seek, and fails when a pipe takes the file's place; these never try.
    """
    reader, writer = os.pipe()
    for descriptor in (1, 2):
        original = os.dup(descriptor)
        os.dup2(writer, descriptor)
        stream = open(descriptor, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        os.dup2(original, descriptor)
        os.close(original)
        if descriptor == 1:
            sys.stdout = sys.__stdout__ = stream  # type: ignore[misc]
        else:
            sys.stderr = sys.__stderr__ = stream  # type: ignore[misc]
    os.close(reader)
    os.close(writer)


def take_streams(stdout: int, stderr: int) -> None:
    """Put two pipes in the place of descriptors 1 and 2, and close the originals.

    Libraries may have kept `sys.stdout` as it was when they were imported; so the stream objects stay the same.
    """
    for pipe, standard in ((stdout, 1), (stderr, 2)):
        os.dup2(pipe, standard)
        os.close(pipe)


class Console(logging.StreamHandler[TextIO]):
    """Where the worker's log goes; a handler that has closed the standard streams loses lines, and nothing else."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Called by `logging`."""
        try:
            super().handleError(record)
        except Exception:
            pass  # standard error, which is where it complains, takes nothing either


def make_log() -> None:
    """Let whatever is logged go to standard output, in the place of what libraries may have arranged."""
    logging.basicConfig(handlers=[Console(sys.stdout)], level=logging.INFO, format="%(message)s", force=True)


def default_threads(environment: Mapping[str, str]) -> int:
    """Intra-op threads that torch takes by itself in a fresh process."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        first = environment.get(name, "").partition(",")[0].strip()
        if first.isdecimal() and int(first) > 0:
            return int(first)
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def set_threads(count: int) -> None:
    """Use `count` threads within one torch operation, if torch is imported."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)


def limit_new_torch(count: int) -> None:
    """Use `count` threads in a torch that came with the handler, unless the handler has chosen a number itself."""
    torch = sys.modules.get("torch")
    if torch and torch.get_num_threads() == default_threads(os.environ):
        torch.set_num_threads(count)


def ignore_signal(_number: int, _frame: FrameType | None) -> None:
    """A handler that does nothing. Unlike SIG_IGN it is not inherited by programs that a worker starts."""


def outlive_group_signals() -> None:
    """Terminals and service managers signal the whole group at a stop, while the frontend still drains its requests."""
    signal.signal(signal.SIGINT, ignore_signal)
    signal.signal(signal.SIGTERM, ignore_signal)


def _replace_environment(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)


def _extend_search_path(directories: list[str]) -> None:
    sys.path[:] = [*directories, *(entry for entry in sys.path if entry not in directories)]
    importlib.invalidate_caches()


def _reseed() -> None:
    """A forked process inherits the generators' states; each worker shall draw numbers of its own."""
    random.seed()
    if generators := sys.modules.get("numpy.random"):  # numpy imports it when it is used first, and it seeds itself
        generators.seed()
