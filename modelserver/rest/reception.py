"""The connections of one listener, and what the end of the server means for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol, cast

from uvicorn.server import ServerState


class Guest(Protocol):
    """A connection."""

    @property
    def owed(self) -> int:
        """Requests of it that wait for their responses."""

    def go_lame(self) -> None:
        """The next response says that it is the last one."""

    def shutdown(self) -> None:
        """Close now, or as soon as nothing is owed."""

    def give_up(self) -> None:
        """A request that is still being received is refused."""

    def abort(self) -> None:
        """Close at once."""


class Reception(ServerState):
    """Who is connected and which tasks work for them; what uvicorn's protocol calls the state of its server."""

    def __init__(self) -> None:
        super().__init__()
        self.lame = False  # the server is about to stop: responses say that their connection ends
        self.closing = False  # the server stops: whoever is owed nothing goes
        self._empty = asyncio.Event()  # set when the last connection has gone

    @property
    def owed(self) -> int:
        """Requests that wait for their responses."""
        return sum(guest.owed for guest in self._guests())

    def go_lame(self) -> None:
        """From now on every response says that its connection ends with it."""
        self.lame = True
        for guest in self._guests():
            guest.go_lame()

    def close(self) -> None:
        """Ask every connection to end, now or as soon as nothing is owed; those to come too."""
        self.lame = self.closing = True
        for guest in self._guests():
            guest.shutdown()

    def give_up(self) -> None:
        """Refuse what is still being received."""
        for guest in self._guests():
            guest.give_up()

    def abort(self) -> None:
        """Cut whoever is left, and cancel the work for them."""
        for task in list(self.tasks):
            task.cancel()
        for guest in self._guests():
            guest.abort()

    def leave(self, guest: object) -> None:
        """A connection is over."""
        self.connections.discard(guest)
        if not self.connections:
            self._empty.set()

    async def emptied(self) -> None:
        """Return when nobody is connected and no work is left."""
        while self.connections:
            self._empty.clear()
            await self._empty.wait()
        while self.tasks:
            await asyncio.wait(self.tasks)

    def _guests(self) -> Iterable[Guest]:
        return cast(list[Guest], list(self.connections))
