"""Where workers connect: one Unix socket in a private directory, and a check of who comes in."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from modelserver.pool.link import Link, Peer
from modelserver.wire.frames import Hello

HELLO_TIMEOUT = 30.0  # seconds a stranger may stay silent
_PATH_LIMIT = 107  # bytes of a Unix socket's path that every kernel takes

# Returns the worker of this slot and generation, with the token it was given, while it has not connected.
Lookup = Callable[[Hello], tuple[Peer, str] | None]


class Listener:
    """Accepts workers, and nobody else."""

    def __init__(self, temp_dir: Path, frame_limit: int, lookup: Lookup, hello_timeout: float = HELLO_TIMEOUT) -> None:
        self._directory = private_directory(temp_dir)
        self.path = str(self._directory / "w")
        self._frame_limit = frame_limit
        self._lookup = lookup
        self._hello_timeout = hello_timeout
        self._strangers: dict[Link, asyncio.TimerHandle] = {}
        self._server: asyncio.AbstractServer | None = None

    async def open(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Link(self, self._frame_limit), self.path)

    def close(self) -> None:
        """Accept no more, send strangers away and remove the directory."""
        if self._server is not None:
            self._server.close()
        for link in list(self._strangers):
            link.abort()
        shutil.rmtree(self._directory, ignore_errors=True)

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


def private_directory(temp_dir: Path) -> Path:
    """A new directory of mode 0700 under `temp_dir`, or under /tmp if a socket's path would get too long there."""
    temp_dir.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="ms-", dir=temp_dir)).resolve()
    if len(os.fsencode(directory / "w")) > _PATH_LIMIT:
        directory.rmdir()
        directory = Path(tempfile.mkdtemp(prefix="ms-", dir="/tmp"))
    return directory
