"""File descriptors of the frontend: as many as it may have, and some of them kept from its clients."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from typing import Final

_RESERVE: Final = 64  # descriptors for workers and files; a quarter where there are few
_GRPC_PORTS: Final = 2
_GRPC_SHARE: Final = 8  # each of these ports gets the eighth part of all descriptors; REST has what is left
_SILENCE: Final = 10.0  # seconds between two reports


def raise_limit() -> tuple[int, int]:
    """Raise the soft limit to the hard one; returns (limit before, limit now)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # some systems promise more than they give
    return soft, resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def grpc_connections() -> int | None:
    """How many connections a gRPC port may have, since its library accepts by itself and asks nobody; None: any."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else _share(limit)


def _share(limit: int) -> int:
    return max(1, limit // _GRPC_SHARE)


class Headroom:
    """Tells whether a new connection of REST leaves enough descriptors for gRPC and everything else.

    When none at all are left, the event loop closes connections too, but it may lose the listening socket over it, and
    workers cannot connect any more.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._reported = -_SILENCE  # seconds, monotonic

    def admits(self, connection: asyncio.BaseTransport) -> bool:
        """Whether it may stay."""
        return self.admits_descriptor(connection.get_extra_info("socket").fileno())

    def admits_descriptor(self, descriptor: int) -> bool:
        """The same, judged by its descriptor: the lowest free number is always the next one taken."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        kept = min(_RESERVE, limit // 4) + _GRPC_PORTS * _share(limit)
        if limit == resource.RLIM_INFINITY or descriptor < limit - kept:
            return True
        now = time.monotonic()
        if now >= self._reported + _SILENCE:
            self._reported = now
            self._report(f"Too many connections for {limit} file descriptors: new ones are closed.")
        return False
