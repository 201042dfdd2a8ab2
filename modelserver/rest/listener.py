"""One REST address: bind, listen, and stop listening so that no client is hurt."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn

from modelserver.rest.apps import Connector
from modelserver.rest.door import keep_out, let_in
from modelserver.rest.protocol import ProtocolOptions, protocol_class
from modelserver.rest.reception import Reception
from modelserver.rest.vestibule import HttpsOptions, Vestibule
from modelserver.settings.addresses import Address

BACKLOG: Final = 2048  # connections the kernel holds before we accept them
_ROUND_TRIP: Final = 0.2  # seconds for a connection that has begun to be there, across a network ...
_NO_TRIP: Final = 0.01  # ... and within the machine
_LAST_HANDSHAKES: Final = 1.0  # seconds for clients that have connected to speak TLS once the server stops


class Listener:
    """A bound address and the connections that came by it."""

    def __init__(self, connector: Connector) -> None:
        """Raises OSError if the address is taken."""
        self.connector = connector
        self.socket = _bind(connector.address)
        self.address = _bound(connector.address, self.socket)
        self.reception = Reception()
        self._file = _inode(connector.address)
        self._server: asyncio.Server | None = None
        self._vestibule: Vestibule | None = None  # of https, instead of the loop's server

    async def listen(self, options: ProtocolOptions, https: HttpsOptions | None = None) -> None:
        """Begin to accept; `https` is what an address of that kind needs in addition."""
        loop = asyncio.get_running_loop()
        self._welcome = self._protocols(options, loop)
        self.socket.listen(BACKLOG)
        if self.address.tls:
            assert https is not None
            self._vestibule = Vestibule(self.socket, https, self._welcome)
            self._vestibule.open()
        else:
            self._server = await loop.create_server(self._welcome, sock=self.socket, backlog=BACKLOG)

    async def stop_listening(self) -> None:
        """Let nobody in any more but those who have connected already."""
        if self.socket.fileno() < 0:
            return
        self._remove_file()
        if self._server is not None or self._vestibule is not None:
            keep_out(self.socket)
            await asyncio.sleep(_NO_TRIP if _within_the_machine(self.socket) else _ROUND_TRIP)
        if self._server is not None:
            await self._let_in_the_last(self._server)
        if self._vestibule is not None:
            await self._see_in_the_last(self._vestibule)
        self.socket.close()

    def _remove_file(self) -> None:
        """Of a Unix socket, unless another server has put its own there."""
        if self._file is not None and self._file == _inode(self.address):
            Path(self.address.path).unlink(missing_ok=True)

    async def _see_in_the_last(self, vestibule: Vestibule) -> None:
        vestibule.close()
        for guest in let_in(self.socket):
            vestibule.receive(guest)
        await vestibule.emptied(_LAST_HANDSHAKES)

    async def _let_in_the_last(self, server: asyncio.Server) -> None:
        with self.socket.dup() as listening:  # the loop's own descriptor accepts no more once it is closed
            server.close()
            guests = let_in(listening)
        loop = asyncio.get_running_loop()
        outcomes = await asyncio.gather(
            *(loop.connect_accepted_socket(self._welcome, guest) for guest in guests), return_exceptions=True
        )
        for guest, outcome in zip(guests, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                guest.close()  # it has left meanwhile
        await asyncio.sleep(0)  # those whom the loop let in last are introduced to their protocols now

    def _protocols(self, options: ProtocolOptions, loop: asyncio.AbstractEventLoop) -> Callable[[], asyncio.Protocol]:
        """What makes the protocol of each connection."""
        protocol = protocol_class(options)
        config = uvicorn.Config(
            self.connector.app,
            interface="asgi3",  # taken as it is: our protocol calls it with an exchange
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        config.load()
        return partial(protocol, config, self.reception, {}, loop)  # type: ignore[call-arg]


def _bind(address: Address) -> socket.socket:
    """Bind without listening, so that a taken port is known before any model loads. Raises OSError."""
    try:
        if address.scheme == "unix":
            bound = _bind_unix(address.path)
        else:
            family, _, _, _, place = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            bound = socket.socket(family, socket.SOCK_STREAM)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(place)
    except OSError as error:
        raise OSError(error.errno, f"Failed to bind to address: {address}: {error.strerror}") from None
    bound.setblocking(False)
    return bound


def _bind_unix(path: str) -> socket.socket:
    """Takes the place of a socket that nobody listens on any more, but of nothing else. Raises OSError."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_stale(path):
            Path(path).unlink(missing_ok=True)
        bound.bind(path)
    except OSError:
        bound.close()
        raise
    return bound


def _is_stale(path: str) -> bool:
    """Whether this is a Unix socket without a listener."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        knocking.setblocking(False)
        return knocking.connect_ex(path) == errno.ECONNREFUSED


def _inode(address: Address) -> tuple[int, int] | None:
    """Device and inode of a Unix socket's file; None for other addresses, or if it is gone."""
    try:
        facts = os.lstat(address.path) if address.scheme == "unix" else None
    except OSError:
        return None
    return facts and (facts.st_dev, facts.st_ino)


def _bound(address: Address, bound: socket.socket) -> Address:
    """The address with the port that the kernel chose where 0 was asked for."""
    return address if address.scheme == "unix" or address.port else replace(address, port=bound.getsockname()[1])


def _within_the_machine(bound: socket.socket) -> bool:
    """Whether only clients of this machine can reach it."""
    name = bound.getsockname()
    return isinstance(name, str) or ipaddress.ip_address(name[0]).is_loopback
