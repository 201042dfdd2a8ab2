"""Where workers connect: one Unix socket in the run directory, and a check of who comes in."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from modelserver.pool.link import Link, Peer
from modelserver.scratch import SOCKET
from modelserver.wire.frames import Hello

_BACKLOG = 100  # workers that connect at the same moment
HELLO_TIMEOUT = 30.0  # seconds a stranger may stay silent

# Returns the worker of this slot and generation, with the token it was given, while it has not connected.
Lookup = Callable[[Hello], tuple[Peer, str] | None]


class Listener:
    """Accepts workers, and nobody else."""

    def __init__(self, directory: Path, frame_limit: int, lookup: Lookup, hello_timeout: float = HELLO_TIMEOUT) -> None:
        self.path = str(directory / SOCKET)
        self._frame_limit = frame_limit
        self._lookup = lookup
        self._hello_timeout = hello_timeout
        self._strangers: dict[Link, asyncio.TimerHandle] = {}
        self._servers: list[asyncio.AbstractServer] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self) -> None:
        """Begin to accept. Raises OSError."""
        await self._accept(self._bind())

    def restore(self) -> None:
        """Make the socket anew if it is gone: handlers and cleaners of /tmp delete files that they do not know."""
        if not self._closed and not Path(self.path).exists():
            try:
                task = asyncio.get_running_loop().create_task(self._accept(self._bind()))
            except OSError:
                return  # the worker will say that it cannot connect
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _bind(self) -> socket.socket:
        Path(self.path).parent.mkdir(mode=0o700, exist_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(self.path)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        return listening

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Link(self, self._frame_limit), sock=listening, backlog=_BACKLOG)
        for former in self._servers:
            former.close()  # nobody can reach it any more
        self._servers = [server]
        if self._closed:
            server.close()

    def close(self) -> None:
        """Accept no more, send strangers away and remove the socket."""
        self._closed = True
        for server in self._servers:
            server.close()
        for link in list(self._strangers):
            link.abort()
        Path(self.path).unlink(missing_ok=True)

    def admit(self, hello: Hello) -> Peer | None:
        """The worker that says hello, if it is expected and knows its token."""
        found = self._lookup(hello)
        if found is None:
            return None
        peer, token = found
        return peer if secrets.compare_digest(hello.token.encode(), token.encode()) else None

    def opened(self, link: Link) -> None:
        """Give a stranger a limited time for its hello."""
        self._strangers[link] = asyncio.get_running_loop().call_later(self._hello_timeout, link.abort)

    def closed(self, link: Link) -> None:
        """No stranger any more: admitted, or gone."""
        self._strangers.pop(link).cancel()
