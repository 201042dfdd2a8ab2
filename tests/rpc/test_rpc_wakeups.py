"""What grpcio tells the loop is taken at once."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from rpc_doubles import Port, until

from modelserver.rpc.listener import Endpoint, Limits, Listener
from modelserver.rpc.wakeups import emptied_at_once


def test_a_reader_that_asks_for_a_byte_gets_all() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        later, other = socket.socketpair()
        with ours, theirs, later, other:
            for each in (ours, later):
                each.setblocking(False)
            read: list[bytes] = []
            with emptied_at_once():
                loop.add_reader(ours, lambda: read.append(ours.recv(1)))
            loop.add_reader(later, lambda: read.append(later.recv(1)))
            theirs.send(b"12345")
            await until(lambda: read)
            other.send(b"67")
            await until(lambda: len(read) == 3)
            assert read == [b"12345", b"6", b"7"]
            theirs.send(b"8")
            await until(lambda: len(read) == 4)
            assert loop.remove_reader(ours) and loop.remove_reader(later)

    asyncio.run(scene())


def test_grpcio_is_one_of_them() -> None:
    """If it were no more, nothing would fail, but all calls would take longer."""

    async def scene() -> None:
        loop = cast(Any, asyncio.get_running_loop())
        add_reader, sockets = loop.add_reader, []

        def add(place: Any, *rest: Any) -> None:
            sockets.append(place)
            add_reader(place, *rest)

        loop.add_reader = add
        bound = Listener("gRPC inference", Endpoint("127.0.0.1", 0), Port().board, Limits(1000))
        await bound.listen()
        emptied = [type(place) for place in sockets if isinstance(place, socket.socket)]
        await bound.close()
        assert len(emptied) == 1 and emptied[0] is not socket.socket

    asyncio.run(scene())
