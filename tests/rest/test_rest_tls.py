"""REST over TLS: who is let in, what becomes of the others, and how connections end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from rest_doubles import GET, PING, Service, post, predicting, read_responses

from harness.certificates import Certified, rsa_key
from modelserver.identity.context import server_context
from modelserver.identity.identity import Identity
from modelserver.rest.apps import Connector
from modelserver.rest.listener import Listener
from modelserver.rest.protocol import ProtocolOptions
from modelserver.rest.vestibule import HttpsOptions
from modelserver.settings.addresses import Address
from modelserver.wire.frames import Reply

Run = Callable[[Coroutine[Any, Any, None]], None]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LAST = b"GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n"
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # how a handshake begins


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    chosen: Run = request.param
    return chosen


@pytest.fixture(scope="module")
def server() -> Certified:
    return Certified.make()


class Stage:
    """A listener of https, what it reports, and clients that are closed at the end."""

    def __init__(self, listener: Listener, server: Certified, stack: AsyncExitStack) -> None:
        self.listener = listener
        self.server = server
        self.reports: list[tuple[str, str]] = []
        self._stack = stack

    async def connect(self, context: ssl.SSLContext | None = None) -> Streams:
        """A client that speaks TLS."""
        return await self._open(ssl=context or self.server.trusting(), server_hostname="localhost")

    async def connect_plain(self) -> Streams:
        """A client that does not."""
        return await self._open()

    async def _open(self, **options: Any) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.address.port, **options)
        self._stack.push_async_callback(close, writer)
        return reader, writer


async def close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    try:
        await writer.wait_closed()
    except OSError:
        pass


@asynccontextmanager
async def stage(
    server: Certified,
    folder: Path,
    *,
    options: ProtocolOptions | None = None,
    service: Service | None = None,
    authority: Certified | None = None,
    admits: Callable[[int], bool] = lambda _: True,
    patience: float = 30.0,
) -> AsyncIterator[Stage]:
    identity = Identity(server.key, (server.certificate,))
    context = server_context(identity, (authority.certificate,) if authority else (), folder)
    listener = Listener(Connector("Inference", Address("https", "127.0.0.1", 0), (service or predicting()).app))
    async with AsyncExitStack() as stack:
        here = Stage(listener, server, stack)
        report = lambda level, message: here.reports.append((level, message))  # noqa: E731
        await listener.listen(options or ProtocolOptions(), HttpsOptions(context, admits, patience, report))
        stack.push_async_callback(end, listener)
        yield here


async def end(listener: Listener) -> None:
    await listener.stop_listening()
    listener.reception.abort()
    await listener.reception.emptied()


async def exchange(streams: Streams, data: bytes, responses: int = 1) -> list[int]:
    """Send, and return the statuses of so many responses."""
    reader, writer = streams
    writer.write(data)
    received = b""
    while True:
        received += await reader.read(65536)
        try:
            found = read_responses(received)
        except AssertionError:
            continue
        if len(found) == responses:
            return [response.status for response in found]


def test_requests_one_after_the_other_and_at_once(server: Certified, tmp_path: Path, run: Run) -> None:
    async def talk() -> None:
        async with stage(server, tmp_path) as here:
            streams = await here.connect()
            assert await exchange(streams, GET) == [200]
            assert await exchange(streams, PING + GET + PING, 3) == [200, 200, 200]
            assert await exchange(streams, LAST) == [200]
            assert await streams[0].read() == b"", "a proper end"

    run(talk())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(server: Certified, tmp_path: Path, run: Run, version: ssl.TLSVersion) -> None:
    async def talk() -> None:
        async with stage(server, tmp_path) as here:
            context = server.trusting()
            context.minimum_version = context.maximum_version = version
            reader, writer = await here.connect(context)
            assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
            assert await exchange((reader, writer), PING) == [200]

    run(talk())


def test_older_versions_are_refused(server: Certified, tmp_path: Path, run: Run) -> None:
    async def talk() -> None:
        async with stage(server, tmp_path) as here:
            context = server.trusting()
            context.set_ciphers("ALL:@SECLEVEL=0")
            with pytest.warns(DeprecationWarning):
                context.minimum_version = ssl.TLSVersion.TLSv1_1
            with pytest.warns(DeprecationWarning):
                context.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await here.connect(context)
            await exchange(await here.connect(), PING)
            assert here.reports[0][0] == "DEBUG"
            assert "TLS handshake failed" in here.reports[0][1]

    run(talk())


def test_the_ciphers_of_torchserve_are_served(tmp_path: Path, run: Run) -> None:
    server = Certified.make(rsa_key())

    async def talk() -> None:
        async with stage(server, tmp_path) as here:
            for cipher in ("ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES128-GCM-SHA256"):
                context = server.trusting()
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                context.set_ciphers(cipher)
                _, writer = await here.connect(context)
                assert writer.get_extra_info("cipher")[0] == cipher

    run(talk())


@pytest.mark.parametrize("data", [GET, post(5) + b"hello", b"nonsense"], ids=["get", "post", "nonsense"])
def test_plain_http_is_answered_in_plain_http(server: Certified, tmp_path: Path, run: Run, data: bytes) -> None:
    async def talk() -> None:
        async with stage(server, tmp_path) as here:
            reader, writer = await here.connect_plain()
            writer.write(data)
            (response,) = read_responses(await reader.read())
            assert response.status == 403
            assert response.json == {"status": "This TorchServe instance only accepts HTTPS requests"}
            assert response.names == [
                "content-type",
                "Pragma",
                "Cache-Control",
                "Expires",
                "content-length",
                "connection",
            ]
            assert response.headers["content-length"] == "71"
            assert response.headers["connection"] == "close"
            assert here.reports == [("ERROR", "Recieved HTTP request!")]

    run(talk())


def test_nonsense_instead_of_a_handshake_ends_the_connection(server: Certified, tmp_path: Path, run: Run) -> None:
    async def talk() -> None:
        async with stage(server, tmp_path) as here:
            reader, writer = await here.connect_plain()
            writer.write(b"\x16\x03\x01\x00\x05hello")
            await reader.read()  # an alert at most
            assert await exchange(await here.connect(), PING) == [200]

    run(talk())


@pytest.mark.parametrize("said", [b"", HELLO], ids=["nothing", "half a handshake"])
def test_a_slow_handshake_is_not_waited_for(server: Certified, tmp_path: Path, run: Run, said: bytes) -> None:
    async def talk() -> None:
        async with stage(server, tmp_path, patience=0.05) as here:
            reader, writer = await here.connect_plain()
            writer.write(said)
            assert await reader.read() == b""

    run(talk())


def test_who_leaves_before_the_handshake_is_forgotten(server: Certified, tmp_path: Path, run: Run) -> None:
    async def talk() -> None:
        async with stage(server, tmp_path) as here:
            for said in (b"", HELLO):
                _, writer = await here.connect_plain()
                writer.write(said)
                await writer.drain()
                await close(writer)
            assert await exchange(await here.connect(), PING) == [200]

    run(talk())


def test_where_descriptors_are_short_nobody_waits_for_a_handshake(server: Certified, tmp_path: Path, run: Run) -> None:
    asked: list[int] = []

    def admits(descriptor: int) -> bool:
        asked.append(descriptor)
        return len(asked) > 1

    async def talk() -> None:
        async with stage(server, tmp_path, admits=admits) as here:
            reader, _ = await here.connect_plain()
            with_reset = asyncio.ensure_future(reader.read())
            await asyncio.wait([with_reset])
            assert with_reset.exception() is not None or with_reset.result() == b""
            assert await exchange(await here.connect(), PING) == [200]
        assert all(descriptor > 2 for descriptor in asked)

    run(talk())


class TestClientCertificates:
    def test_who_shows_one_of_the_authority_is_served(self, server: Certified, tmp_path: Path, run: Run) -> None:
        authority = Certified.make(name="authority", authority=True)
        files = Certified.make(name="client", by=authority).write_pair(tmp_path)

        async def talk() -> None:
            async with stage(server, tmp_path, authority=authority) as here:
                context = server.trusting()
                context.load_cert_chain(files["certificate_file"], files["private_key_file"])
                assert await exchange(await here.connect(context), GET) == [200]

        run(talk())

    @pytest.mark.parametrize("shown", ["none", "another authority's"])
    def test_others_are_not(self, server: Certified, tmp_path: Path, run: Run, shown: str) -> None:
        authority = Certified.make(name="authority", authority=True)
        files = Certified.make(name="client", by=Certified.make(name="another")).write_pair(tmp_path)
        service = predicting()

        async def talk() -> None:
            async with stage(server, tmp_path, authority=authority, service=service) as here:
                context = server.trusting()
                if shown != "none":
                    context.load_cert_chain(files["certificate_file"], files["private_key_file"])
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    reader, writer = await here.connect(context)
                    writer.write(GET)
                    await reader.readexactly(1)  # TLS 1.3 tells clients here only
            assert [level for level, _ in here.reports] == ["DEBUG"]

        run(talk())
        assert service.engine.jobs == []


class TestTheEnd:
    def test_a_refused_body_does_not_cost_the_answer(self, server: Certified, tmp_path: Path) -> None:
        async def talk() -> None:
            async with stage(server, tmp_path, options=ProtocolOptions(max_body=100_000)) as here:
                reader, writer = await here.connect()
                writer.write(post(4_000_000))
                for _ in range(40):
                    writer.write(b"x" * 100_000)
                    await writer.drain()
                (response,) = read_responses(await reader.read())
                assert response.status == 413

        uvloop.run(talk())

    def test_a_slow_client_gets_the_whole_of_its_last_response(self, server: Certified, tmp_path: Path) -> None:
        service = predicting()
        service.engine.answer = lambda job: Reply(0, b"x" * 20_000_000)

        async def talk() -> None:
            async with stage(server, tmp_path, service=service, options=ProtocolOptions(farewell=0.001)) as here:
                reader, writer = await here.connect()
                writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                received = await reader.readexactly(1000)
                await asyncio.sleep(0.1)  # a hundred looks whether it may be parted with
                received += await reader.read()
                (response,) = read_responses(received)
                assert len(response.body) == 20_000_000

        uvloop.run(talk())

    def test_an_idle_client_that_says_nothing_does_not_hold_up_the_stop(
        self, server: Certified, tmp_path: Path, run: Run
    ) -> None:
        async def talk() -> None:
            async with stage(server, tmp_path) as here:
                client = await asyncio.to_thread(idle_client, here)
                reception = here.listener.reception
                await here.listener.stop_listening()
                reception.close()
                async with asyncio.timeout(60):
                    await reception.emptied()
                client.close()

        run(talk())

    def test_who_has_connected_may_still_shake_hands(self, server: Certified, tmp_path: Path, run: Run) -> None:
        async def talk() -> None:
            async with stage(server, tmp_path) as here:
                client = socket.create_connection(("127.0.0.1", here.listener.address.port))
                stopping = asyncio.ensure_future(here.listener.stop_listening())
                reader, writer = await asyncio.open_connection(
                    sock=client, ssl=server.trusting(), server_hostname="localhost"
                )
                await stopping
                here.listener.reception.close()
                assert await exchange((reader, writer), PING) == [200]
                await close(writer)

        run(talk())

    def test_who_does_not_shake_hands_is_sent_away(self, server: Certified, tmp_path: Path, run: Run) -> None:
        async def talk() -> None:
            async with stage(server, tmp_path) as here:
                clients = [await here.connect_plain() for _ in range(2)]
                clients[1][1].write(HELLO)
                await here.listener.stop_listening()
                assert [await reader.read() for reader, _ in clients] == [b"", b""]
                with pytest.raises(ConnectionRefusedError):
                    await here.connect()

        run(talk())


def idle_client(here: Stage) -> ssl.SSLSocket:
    """A client in a thread, which reads nothing unless it is told to: it never answers a farewell."""
    plain = socket.create_connection(("127.0.0.1", here.listener.address.port))
    client = here.server.trusting().wrap_socket(plain, server_hostname="localhost")
    client.sendall(PING)
    assert client.recv(12) == b"HTTP/1.1 200"
    return client
