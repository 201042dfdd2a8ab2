"""The life of a worker process: connect, load the model, serve."""

from __future__ import annotations

import logging
import os
import platform
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import msgspec
from setproctitle import getproctitle

from modelserver.allocator import keep_freed_memory
from modelserver.wire.control import ORDER_VARIABLE, Spawn
from modelserver.wire.frames import Fatal, Hello, Load, Loaded
from modelserver.worker.continuous_service import load_service
from modelserver.worker.failures import EXIT, failure_of
from modelserver.worker.loop import Channel, ProtocolError, serve
from modelserver.worker.process import (
    environment_of,
    limit_new_torch,
    make_log,
    make_streams,
    outlive_group_signals,
    settle,
)
from modelserver.worker.service import LoadFailed
from modelserver.worker.silence import SilentChannel

ServiceT = TypeVar("ServiceT")

_logger = logging.getLogger(__name__)


def main() -> int:
    """Entry of an exec'd worker; returns its exit status."""
    getproctitle()  # finds argv by the place of the environment: not any more once that has changed
    order = msgspec.json.decode(os.environ.pop(ORDER_VARIABLE), type=Spawn)
    # The model's directories come onto the search path only now: a json.py in there must not reach our own imports.
    make_streams()
    make_log()
    settle(order, environment_of(os.environ, order))
    return run(order)


def run(order: Spawn) -> int:
    """Serve one model over one connection; returns the exit status. A SystemExit of the handler passes."""
    print(f"[PID]{os.getpid()}")
    print("Torch worker started.")
    print(f"Python runtime: {platform.python_version()}")
    try:
        channel = _connect(order)
        with _last_words(channel):
            loaded = (_serve_concurrently if order.concurrent else _serve)(order, channel)
            return 0 if loaded else 1
    except ConnectionError:
        print("Frontend disconnected.")
    except SystemExit:
        raise
    except BaseException:
        _print_death(traceback.format_exc())
        return 1
    return 0


@contextmanager
def _last_words(channel: Channel) -> Iterator[None]:
    """Tell the frontend what ends this process."""
    try:
        yield
    except ConnectionError:
        raise
    except BaseException as error:
        with suppress(OSError):
            channel.send(Fatal(failure_of(EXIT, error)))
        raise


def _connect(order: Spawn) -> Channel:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(order.socket)
    # Python closes it in programs that a handler starts; a plain fork of the handler must not keep it open either.
    os.register_at_fork(after_in_child=connection.close)
    rank = int(os.environ["LOCAL_RANK"]) if order.ranks > 1 else order.rank
    # One unanswered batch, of one process: the order that shared memory relies on.
    shares = not (order.concurrent or order.launcher or rank)
    channel = SilentChannel(connection, rank) if rank else Channel(connection, shares=shares)
    version = platform.python_version()
    channel.send(Hello(order.slot, order.generation, rank, os.getpid(), order.token, version, order.concurrent, shares))
    print(f"Connection accepted: {order.socket}.")
    return channel


def _serve(order: Spawn, channel: Channel) -> bool:
    """Load the model, and answer one batch after the other; False if it could not be loaded."""
    service = _load(order, channel, load_service)
    if service is not None:
        serve(channel, service)
    return service is not None


def _serve_concurrently(order: Spawn, channel: Channel) -> bool:
    """The same with an asynchronous handler, on an event loop that `initialize` finds there."""
    import asyncio

    from modelserver.worker.async_loop import serve_concurrently
    from modelserver.worker.concurrent_service import ConcurrentService

    asyncio.set_event_loop(asyncio.new_event_loop())
    service = _load(order, channel, ConcurrentService.load)
    if service is not None:
        serve_concurrently(channel, service)
    return service is not None


def _load(order: Spawn, channel: Channel, load: Callable[[Load, Channel], ServiceT]) -> ServiceT | None:
    """Load the model that the first frame names and report the outcome; None if it failed."""
    frame = channel.receive()
    if not isinstance(frame, Load):
        raise ProtocolError(f"expected Load, got {type(frame).__name__}")
    print(f"model_name: {frame.model_name}, batchSize: {frame.batch_size}")
    had_torch = "torch" in sys.modules
    try:
        service = load(frame, channel)
    except LoadFailed as failed:
        _print_death(failed.failure.traceback or f"RuntimeError: {failed.code} - {failed.message}")
        channel.send(Loaded(failed.code, failed.message, failed.failure))
        return None
    if order.threads and not had_torch:
        limit_new_torch(order.threads)
    keep_freed_memory(os.environ)
    if order.launcher:
        outlive_group_signals()
    channel.send(Loaded(200, f"loaded model {frame.model_name}"))
    return service


def _print_death(trace: str) -> None:
    _logger.error("Backend worker process died.\n%s", trace.rstrip())
