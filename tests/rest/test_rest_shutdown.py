"""What the end of the server means for one connection, and for the listening socket."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from rest_doubles import GET, PING, Connection, post, predicting, read_responses, settle

from harness.clock import run as run_in_virtual_time
from modelserver.rest.apps import Connector
from modelserver.rest.door import keep_out, let_in
from modelserver.rest.exchange import Exchange
from modelserver.rest.listener import Listener
from modelserver.rest.protocol import ProtocolOptions
from modelserver.settings.addresses import Address
from modelserver.wire.frames import Reply

Run = Callable[[Coroutine[Any, Any, None]], None]


def connections(written: bytes) -> list[str]:
    """The `connection` header of each response."""
    return [response.headers["connection"] for response in read_responses(written)]


# Lame: served as before, but every response says that the connection ends.


def test_a_lame_server_serves_and_ends_the_connection() -> None:
    here = predicting()

    async def talk() -> None:
        before = here.connect()
        await before.feed(GET)
        before.state.go_lame()
        assert not before.transport.closed, "an idle client is not surprised"
        assert connections(await before.feed(GET)) == ["keep-alive", "close"]
        assert before.transport.closed
        after = join(before)
        assert connections(await after.feed(GET)) == ["close"]
        assert after.transport.closed

    asyncio.run(talk())


def test_a_request_that_runs_when_the_server_goes_lame_is_told() -> None:
    here = predicting()
    here.engine.answer = lambda job: None

    async def talk() -> None:
        connection = here.connect()
        await connection.feed(GET)
        connection.state.go_lame()
        here.engine.settle_job(here.engine.jobs[0], Reply(0, b"late"))
        await settle()
        assert connections(connection.written) == ["close"]
        assert connection.transport.closed

    asyncio.run(talk())


def test_of_pipelined_requests_the_last_one_is_told() -> None:
    here = predicting()
    here.engine.answer = lambda job: None

    async def talk() -> None:
        connection = here.connect()
        await connection.feed(GET + PING + PING)
        assert connection.protocol.owed == 3
        connection.state.go_lame()
        here.engine.settle_job(here.engine.jobs[0], Reply(0, b"late"))
        await settle()
        assert connections(connection.written) == ["keep-alive", "keep-alive", "close"]
        assert connection.protocol.owed == 0

    asyncio.run(talk())


def test_a_response_that_has_promised_to_keep_the_connection_keeps_its_promise() -> None:
    begun: list[Exchange] = []

    def app(exchange: Exchange) -> None:
        if begun:
            exchange.respond(200, b"", b"")
        else:
            exchange.begin(200, b"")
            begun.append(exchange)

    async def talk() -> None:
        connection = Connection(app)
        await connection.feed(GET)
        connection.state.go_lame()
        begun[0].end()
        assert not connection.transport.closed
        assert connections(await connection.feed(GET)) == ["keep-alive", "close"]

    asyncio.run(talk())


# Closing: whoever is owed nothing goes.


def test_an_idle_connection_is_closed_at_once() -> None:
    here = predicting()

    async def talk() -> None:
        connection = here.connect()
        await connection.feed(GET)
        connection.state.close()
        assert connection.transport.closed

    asyncio.run(talk())


def test_a_stream_is_finished_before_its_connection_is_closed() -> None:
    begun: list[Exchange] = []

    def app(exchange: Exchange) -> None:
        exchange.begin(200, b"")
        begun.append(exchange)

    async def talk() -> None:
        connection = Connection(app)
        await connection.feed(GET)
        connection.state.close()
        assert not connection.transport.closed
        begun[0].end()
        assert connection.transport.closed

    asyncio.run(talk())


@pytest.mark.parametrize("received", [1, 10, len(post(5)), len(post(5)) + 2])
def test_a_request_half_received_may_be_finished(received: int) -> None:
    here = predicting()
    request = post(5) + b"hello"

    async def talk() -> None:
        connection = here.connect()
        await connection.feed(GET, request[:received])
        connection.state.close()
        assert not connection.transport.closed
        assert connections(await connection.feed(request[received:])) == ["keep-alive", "close"]
        assert connection.transport.closed

    asyncio.run(talk())


@pytest.mark.parametrize("received", [1, 10, len(post(5)), len(post(5)) + 2])
def test_a_request_that_is_not_finished_in_time_is_refused(received: int) -> None:
    here = predicting()

    async def talk() -> None:
        connection = here.connect()
        await connection.feed(GET, (post(5) + b"hello")[:received])
        connection.state.close()
        connection.state.give_up()
        await settle()
        _, second = read_responses(connection.written)
        assert (second.status, second.headers["connection"]) == (408, "close")
        assert second.json["message"] == "Request was not received in time."
        assert connection.transport.eof

    asyncio.run(talk())
    assert len(here.engine.jobs) == 1


def test_giving_up_leaves_accepted_requests_alone() -> None:
    here = predicting()
    here.engine.answer = lambda job: None

    async def talk() -> None:
        connection = here.connect()
        await connection.feed(GET)
        connection.state.close()
        connection.state.give_up()
        here.engine.settle_job(here.engine.jobs[0], Reply(0, b"late"))
        await settle()
        assert [response.body for response in read_responses(connection.written)] == [b"late"]

    asyncio.run(talk())


def test_a_client_that_has_only_connected_may_send_one_request() -> None:
    here = predicting()

    async def talk() -> None:
        early = here.connect()
        early.state.close()
        late = join(early)
        for connection in (early, late):
            assert not connection.transport.closed
            assert connections(await connection.feed(GET)) == ["close"]
            assert connection.transport.closed

    run_in_virtual_time(talk())


@pytest.mark.parametrize(("begun", "closed"), [(b"", True), (b"G", False), (GET[:-2], False)])
def test_a_client_that_has_only_connected_has_to_begin_soon(begun: bytes, closed: bool) -> None:
    here = predicting()

    async def talk() -> None:
        connection = here.connect()
        connection.state.close()
        if begun:
            await connection.feed(begun)
        await asyncio.sleep(ProtocolOptions().first_request + 0.1)
        assert connection.transport.closed is closed

    run_in_virtual_time(talk())


def test_giving_up_sends_silent_clients_away() -> None:
    here = predicting()

    async def talk() -> None:
        connection = here.connect()
        connection.state.close()
        connection.state.give_up()
        assert connection.transport.closed
        assert connection.written == b""

    asyncio.run(talk())


def test_a_reception_is_empty_when_the_last_client_and_the_last_work_have_gone() -> None:
    here = predicting()
    here.engine.answer = lambda job: None

    async def talk() -> None:
        busy = here.connect()
        idle = join(busy)
        await busy.feed(GET)
        await idle.feed(PING)
        finish = asyncio.Event()
        busy.protocol.spawn(wait_for(finish))
        reception = busy.state
        reception.close()
        emptied = asyncio.ensure_future(reception.emptied())
        await settle()
        assert idle.transport.closed
        assert reception.owed == 1
        here.engine.settle_job(here.engine.jobs[0], Reply(0, b"late"))
        await settle()
        assert not emptied.done(), "somebody still works"
        finish.set()
        await emptied

    asyncio.run(talk())


def test_whoever_is_left_is_cut() -> None:
    here = predicting()
    here.engine.answer = lambda job: None

    async def talk() -> None:
        connection = here.connect()
        await connection.feed(GET)
        connection.protocol.spawn(wait_for(asyncio.Event()))
        reception = connection.state
        reception.close()
        reception.abort()
        await reception.emptied()
        assert connection.transport.aborted
        assert here.engine.cancelled == here.engine.jobs

    asyncio.run(talk())


async def wait_for(event: asyncio.Event) -> None:
    await event.wait()


def join(other: Connection) -> Connection:
    """Another client of the same listener."""
    return Connection(other.protocol.serve, reception=other.state)


# The listening socket, with real sockets.


ADDRESSES: list[Callable[[Path], Address]] = [
    lambda directory: Address("http", "127.0.0.1", 0),
    lambda directory: Address("http", "0.0.0.0", 0),
    lambda directory: Address("unix", path=str(directory / "socket")),
]


@pytest.fixture(params=ADDRESSES, ids=["loopback", "network", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    make: Callable[[Path], Address] = request.param
    return make(tmp_path)


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


@asynccontextmanager
async def listening(address: Address) -> AsyncIterator[Listener]:
    listener = Listener(Connector("Inference", address, predicting().app))
    await listener.listen(ProtocolOptions())
    try:
        yield listener
    finally:
        await listener.stop_listening()
        listener.reception.abort()
        await listener.reception.emptied()


def client_of(listener: Listener) -> socket.socket:
    """Not connected yet."""
    client = socket.socket(listener.socket.family)
    client.settimeout(60)
    return client


def place(listener: Listener) -> Any:
    return listener.address.path or ("127.0.0.1", listener.address.port)


def test_whoever_has_connected_is_served_after_the_door_is_closed(address: Address, run: Run) -> None:
    async def talk() -> None:
        async with listening(address) as listener:
            with client_of(listener) as silent, client_of(listener) as asking, client_of(listener) as late:
                for client in (silent, asking):
                    client.connect(place(listener))  # the loop has no turn before the door is closed
                asking.sendall(GET)
                listener.reception.go_lame()
                await listener.stop_listening()
                with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
                    late.connect(place(listener))
                listener.reception.close()
                silent.sendall(GET)
                for client in (silent, asking):
                    answer = await asyncio.to_thread(read_all, client)
                    assert connections(answer) == ["close"]
                await listener.reception.emptied()

    run(talk())


def test_the_address_is_free_once_the_door_is_closed(address: Address, run: Run) -> None:
    async def talk() -> None:
        async with listening(address) as old:
            with client_of(old) as client:
                client.connect(place(old))
                await old.stop_listening()
                async with listening(old.address) as new:
                    with client_of(new) as other:
                        other.connect(place(new))
                        other.sendall(GET)
                        new.reception.go_lame()
                        assert connections(await asyncio.to_thread(read_all, other)) == ["close"]

    run(talk())


def test_a_listener_that_never_listened_can_be_closed(address: Address, run: Run) -> None:
    async def talk() -> None:
        listener = Listener(Connector("Inference", address, predicting().app))
        await listener.stop_listening()
        await listener.reception.emptied()

    run(talk())


def test_who_waits_in_the_queue_is_let_in_and_nobody_else(tmp_path: Path) -> None:
    """Where newcomers cannot be kept out, the others are let in all the same."""
    with socket.socket(socket.AF_UNIX) as door:
        path = str(tmp_path / "door")
        door.bind(path)
        door.listen(8)
        door.setblocking(False)
        with socket.socket(socket.AF_UNIX) as guest, socket.socket(socket.AF_UNIX) as newcomer:
            guest.connect(path)
            assert keep_out(door)
            with pytest.raises(ConnectionRefusedError):
                newcomer.connect(path)
            (inside,) = let_in(door)
            inside.close()
            assert let_in(door) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux filters what reaches a listening socket")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_no_connection_begins_while_the_door_closes(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as door, socket.socket(family) as guest, socket.socket(family) as newcomer:
        try:
            door.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        door.listen(8)
        door.setblocking(False)
        guest.connect(door.getsockname())
        assert keep_out(door)
        newcomer.setblocking(False)
        assert newcomer.connect_ex(door.getsockname()) != 0
        (inside,) = let_in(door)
        with inside:
            guest.sendall(b"who has begun to talk may go on")
            assert inside.recv(100) == b"who has begun to talk may go on"


def test_a_socket_that_cannot_be_filtered_is_no_error() -> None:
    door = socket.socket()
    door.close()
    assert keep_out(door) is False


def read_all(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data
