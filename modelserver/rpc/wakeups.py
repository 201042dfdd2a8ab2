"""How grpcio wakes the loop: a thread of its own puts every event into a queue, and then a byte into a socket.

Its reader takes one byte, and then all events that wait. Under load five to ten bytes wait too, so that most turns of
the loop would find a byte and no event; where 278 wait, the thread stands still. Here the reader gets all at once, and
what they tell of is in the queue already. It takes a tenth off the time of the loop for a call.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

_ALL: Final = 4096  # bytes; more than the socket holds


class _Emptied(socket.socket):
    """A socket whose readers get all that waits, however little they ask for."""

    __slots__ = ()

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        return super().recv(_ALL, flags)


@contextmanager
def emptied_at_once() -> Iterator[None]:
    """For the sockets that are put under the loop's eyes in this block.

    The one of grpcio is, with the first server of a loop; nothing else leads to it.
    """
    loop = cast(Any, asyncio.get_running_loop())
    add_reader = loop.add_reader

    def add(place: Any, callback: Callable[..., object], *arguments: Any) -> None:
        if type(place) is socket.socket:
            place.__class__ = _Emptied
        add_reader(place, callback, *arguments)

    loop.add_reader = add
    try:
        yield
    finally:
        del loop.add_reader
