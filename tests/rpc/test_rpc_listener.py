"""Addresses of gRPC: what is bound before anything listens, and what a server of grpcio is told."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from grpc import aio
from rpc_doubles import Port

from harness.server import eventually
from modelserver.rpc.listener import Endpoint, Limits, Listener

PING = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"


def listener(endpoint: Endpoint) -> Listener:
    return Listener("gRPC inference", endpoint, Port().board, Limits(1000))


async def ping(target: str) -> bytes:
    async with aio.insecure_channel(target) as channel:
        answer: bytes = await channel.unary_unary(PING)(b"", timeout=60)
        return answer


def test_a_port_is_known_before_anybody_listens() -> None:
    async def scene() -> None:
        bound = listener(Endpoint("127.0.0.1", 0))
        assert bound.endpoint.port
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", bound.endpoint.port))
        await bound.listen()
        assert b"Healthy" in await ping(str(bound.endpoint))
        with pytest.raises(OSError, match=f"Failed to bind to address: 127.0.0.1:{bound.endpoint.port}: Address alr"):
            listener(bound.endpoint)
        await bound.close()
        await bound.emptied()
        assert bound.owed == 0

    asyncio.run(scene())


def enter(port: int) -> socket.socket | None:
    """A connection on which the server speaks HTTP/2; None if it hangs up."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    try:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        if connection.recv(9):
            return connection
    except ConnectionError:
        pass
    connection.close()
    return None


def crowd(port: int) -> None:
    """Two have a place, others have none until one of them leaves."""
    first, second = enter(port), enter(port)
    assert first is not None and second is not None
    assert [enter(port) for _ in range(20)] == [None] * 20
    first.close()
    third = eventually(lambda: enter(port))
    assert third is not None
    third.close()
    second.close()


def test_more_connections_than_a_port_may_have_are_closed() -> None:
    async def scene() -> None:
        bound = Listener("gRPC inference", Endpoint("127.0.0.1", 0), Port().board, Limits(1000, max_connections=2))
        await bound.listen()
        await asyncio.to_thread(crowd, bound.endpoint.port)
        await bound.close()

    asyncio.run(scene())


def test_a_listener_that_never_listened_can_be_closed() -> None:
    async def scene() -> None:
        bound = listener(Endpoint("127.0.0.1", 0))
        await bound.close()
        await bound.emptied()
        listener(bound.endpoint).stop_listening()

    asyncio.run(scene())


def test_a_unix_socket_takes_the_place_of_a_dead_one_only(tmp_path: Path) -> None:
    async def scene() -> None:
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        bound = listener(Endpoint.parse(f"unix:{path}", 7070))
        await bound.listen()
        assert b"Healthy" in await ping(f"unix:{path}")
        with pytest.raises(OSError, match="Failed to bind to address: unix:"):
            listener(Endpoint(path=str(path)))
        await bound.close()
        path.unlink(missing_ok=True)
        path.write_text("precious")
        with pytest.raises(OSError, match="Failed to bind to address: unix:"):
            listener(Endpoint(path=str(path)))
        assert path.read_text() == "precious"

    asyncio.run(scene())


def test_limits() -> None:
    options = dict(Limits(7, max_age=1 << 40, max_age_grace=0).options())
    assert options["grpc.max_receive_message_length"] == 7 and options["grpc.max_send_message_length"] == -1
    assert options["grpc.max_connection_age_ms"] == 2**31 - 1 and options["grpc.max_connection_age_grace_ms"] == 0
    assert options["grpc.so_reuseport"] == 0
    assert not [name for name in dict(Limits(7).options()) if "age" in name and "message" not in name]


def test_names() -> None:
    assert str(Endpoint("::1", 7)) == "[::1]:7" and str(Endpoint("h", 7)) == "h:7"
    assert str(Endpoint.parse("unix:/x", 7)) == "unix:/x"
