"""One gRPC address: bind, listen, drain, stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from grpc import aio

from modelserver.rpc.switchboard import Switchboard
from modelserver.rpc.wakeups import emptied_at_once

_LAST_WORDS: Final = 1.0  # seconds for clients to be told that their calls were cut
_INT_MAX: Final = 2**31 - 1
_CODINGS: Final = 0b111  # of messages: none, deflate, gzip
_PENDING: Final = 100_000  # calls that wait until they are looked at


def _is_news(record: logging.LogRecord) -> bool:
    """Whether to log it: not that an answer found its call ended by grpcio itself (a message that was too large)."""
    return not str(record.msg).startswith("ExecuteBatchError raised in core")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a port is: host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, host: str, port: int) -> Endpoint:
        """From a setting, which is a host or `unix:PATH`."""
        return cls(path=host[5:]) if host.lower().startswith("unix:") else cls(host, port)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a port allows; ages in milliseconds; None for unlimited."""

    max_request_size: int  # bytes of a message
    max_age: int | None = None
    max_age_grace: int | None = None
    max_connections: int | None = None  # more are closed at once

    def options(self) -> list[tuple[str, int]]:
        """For grpcio."""
        options = [
            ("grpc.max_receive_message_length", min(self.max_request_size, _INT_MAX)),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_channelz", 0),  # figures of grpcio that nobody could ask for; they take 2 to 5 % of a call
            ("grpc.per_message_decompression", 0),  # see `inflation.py`
            ("grpc.compression_enabled_algorithms_bitset", _CODINGS),
            ("grpc.max_metadata_size", 16384),  # bytes, twice as much as clients count on
            # Calls that have arrived in one turn of the loop: by default grpcio cancels some of more than 1,000.
            ("grpc.server.max_pending_requests", _PENDING),
            ("grpc.server.max_pending_requests_hard_limit", _PENDING),
            ("grpc.so_reuseport", 0),  # another server on the same port is an error
            ("grpc.http2.min_ping_interval_without_data_ms", 300_000),
        ]
        if self.max_age is not None:
            options.append(("grpc.max_connection_age_ms", min(self.max_age, _INT_MAX)))
        if self.max_age_grace is not None:
            options.append(("grpc.max_connection_age_grace_ms", min(self.max_age_grace, _INT_MAX)))
        if self.max_connections is not None:
            options.append(("grpc.max_allowed_incoming_connections", min(self.max_connections, _INT_MAX)))
        return options


class Listener:
    """A bound address and the methods behind it."""

    def __init__(
        self, name: str, endpoint: Endpoint, switchboard: Switchboard, limits: Limits, credentials: Any = None
    ) -> None:
        """Raises OSError if the address is taken."""
        self.name = name
        self.switchboard = switchboard
        self._limits = limits
        self._credentials = credentials  # of TLS; None without
        self._place, self.endpoint = _reserve(endpoint)
        self._server: Any = None
        self._ending: asyncio.Task[None] | None = None

    async def listen(self) -> None:
        """Begin to accept. Raises OSError."""
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
        with emptied_at_once():
            server = aio.server(options=self._limits.options())
        server.add_generic_rpc_handlers((self.switchboard,))
        target = _target(self.endpoint)
        try:
            if self._credentials is None:
                server.add_insecure_port(target)
            else:
                server.add_secure_port(target, self._credentials)
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, f"Failed to bind to address: {self.endpoint}: {error}") from None
        await server.start()
        self._server = server
        self._release()

    def stop_listening(self) -> None:
        """Take no new connections and no new calls; those that run may end, if they ever do by themselves."""
        self._release()
        self.switchboard.part()
        if self._server is not None and self._ending is None:
            self._ending = asyncio.create_task(self._server.stop(_FOR_EVER))

    @property
    def owed(self) -> int:
        """Calls that run."""
        return self.switchboard.owed

    def cut(self) -> None:
        """End the calls that run."""
        self.switchboard.cut()

    async def emptied(self) -> None:
        """Return when no call runs any more."""
        if self._ending is not None:
            await asyncio.shield(self._ending)

    async def close(self) -> None:
        """Cut the calls that still run."""
        self.stop_listening()
        if self._ending is None:
            return
        self.cut()
        await asyncio.wait([self._ending], timeout=_LAST_WORDS)
        await self._server.stop(None)
        await self._ending

    def _release(self) -> None:
        if self._place is not None:
            self._place.close()
            self._place = None


_FOR_EVER: Final = 86400.0  # seconds; whoever stops the server sets the limit


def _reserve(endpoint: Endpoint) -> tuple[socket.socket | None, Endpoint]:
    """A socket that is bound but does not listen, so that a port in use is known before any model loads.

    grpcio binds and listens beside it, as two sockets may of which one does not listen. Raises OSError.
    """
    try:
        if endpoint.path:
            _clear(endpoint.path)
            return None, endpoint
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        place = socket.socket(family, socket.SOCK_STREAM)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind(address)
        except OSError:
            place.close()
            raise
    except OSError as error:
        raise OSError(error.errno, f"Failed to bind to address: {endpoint}: {error.strerror}") from None
    name = place.getsockname()
    return place, replace(endpoint, host=str(name[0]), port=int(name[1]))


def _clear(path: str) -> None:
    """Remove a Unix socket that nobody listens on any more. Raises OSError for anything else that is there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        knocking.setblocking(False)
        if knocking.connect_ex(path) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    Path(path).unlink()


def _target(endpoint: Endpoint) -> str:
    """An address as grpcio has it; it makes a wildcard of any family one of both."""
    return f"unix:{endpoint.path}" if endpoint.path else str(endpoint)
