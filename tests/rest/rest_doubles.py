"""An engine, a record keeper and a connection that live in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from modelserver.engine.job import Chunks, Job
from modelserver.engine.requests import Ailment, Registered, Registration, Scaled, VersionStatus
from modelserver.errors import Cause, Certificate, ModelNotFound, ServerError, VersionNotFound
from modelserver.rest.apps import api_app
from modelserver.rest.exchange import App
from modelserver.rest.protocol import HttpProtocol, ProtocolOptions, protocol_class
from modelserver.rest.reception import Reception
from modelserver.settings.table import Settings
from modelserver.wire.frames import Reply

GET = b"GET /predictions/m HTTP/1.1\r\n\r\n"
PING = b"GET /ping HTTP/1.1\r\n\r\n"


class MemoryEngine:
    """Knows the models it is told, answers jobs by a function, and remembers the calls."""

    def __init__(self, *models: str) -> None:
        self.models = {name: f"{name}.mar" for name in models}
        self.startup: list[str] = []
        self.versions: dict[str, list[VersionStatus]] = {}
        self.jobs: list[Job] = []
        self.asked_versions: list[str | None] = []
        self.cancelled: list[Job] = []
        self.calls: list[Any] = []
        self.is_healthy = True
        self.not_ready: list[str] = []  # models of the start
        self.answer: Callable[[Job], Reply | ServerError | None] = lambda job: Reply(0, b"ok")
        self.outcome: Any = None  # of register, scale, unregister, set_default: returned, or raised if an error
        self.refusal: ServerError | None = None

    def submit(self, job: Job, version: str | None) -> None:
        self.require(job.model, version)
        if self.refusal is not None:
            raise self.refusal
        self.jobs.append(job)
        self.asked_versions.append(version)
        answer = self.answer(job)
        if answer is not None:
            asyncio.get_running_loop().call_soon(self.settle_job, job, answer)

    def require(self, model: str, version: str | None) -> None:
        if model not in self.models:
            raise ModelNotFound(f"Model not found: {model}")
        if version not in (None, "1.0"):
            raise VersionNotFound(f"Model version: {version} does not exist for model: {model}")

    def startup_models(self) -> list[str]:
        return self.startup

    def settle_job(self, job: Job, answer: Reply | ServerError) -> None:
        """Answer a job."""
        if isinstance(answer, ServerError):
            job.fail(answer)
        else:
            job.worker, job.sent, job.replied = "W-9000-m_1.0", 1.0, 2.0
            job.succeed(answer)

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job)
        job.cancel()

    def healthy(self) -> bool:
        return self.is_healthy

    def unready(self) -> list[str]:
        return self.not_ready

    def ailments(self) -> list[Ailment]:
        return [Ailment(Certificate(Cause.LOAD_TIMEOUT, "too slow"), "m", "1.0", "9000")]

    def list_models(self) -> list[tuple[str, str]]:
        return sorted(self.models.items())

    def describe(self, model: str, version: str | None) -> list[VersionStatus]:
        if model not in self.versions:
            raise ModelNotFound(f"Model not found: {model}")
        entries = self.versions[model]
        if version == "all":
            return entries
        found = [entry for entry in entries if version in (None, entry.model_version)][:1]
        if not found:
            raise VersionNotFound(f"Model version: {version} does not exist for model: {model}")
        return found

    async def observe(self, model: str, version: str | None) -> list[VersionStatus]:
        return self.describe(model, version)

    async def register(self, registration: Registration) -> Registered:
        self.calls.append(registration)
        outcome = self._settle()
        assert isinstance(outcome, Registered)
        return outcome

    async def scale(self, model: str, version: str | None, minimum: int, maximum: int, *, synchronous: bool) -> Scaled:
        self.calls.append(("scale", model, version, minimum, maximum, synchronous))
        outcome = self._settle()
        assert isinstance(outcome, Scaled)
        return outcome

    async def unregister(self, model: str, version: str | None) -> None:
        self.calls.append(("unregister", model, version))
        self._settle()

    async def set_default(self, model: str, version: str) -> None:
        self.calls.append(("set_default", model, version))
        self._settle()

    def _settle(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@dataclass
class Record:
    """What telemetry was told about one response."""

    remote: str
    method: str
    target: str
    version: str
    status: int
    received: float
    responded: float
    worker: str = ""
    model: str = ""
    label: str = ""
    request_id: str = ""
    sent: float = 0.0
    replied: float = 0.0
    ok: bool = False


class Recorder:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.traced: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.scraped: list[list[str]] = []
        self.counted: dict[tuple[str, str], dict[str, Any]] = {}

    def request_done(self, *args: Any, **kwargs: Any) -> None:
        self.records.append(Record(*args, **kwargs))

    def request_traced(self, **facts: Any) -> None:
        self.traced.append(facts)

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        self.lines.append(f"{level} {logger} {message}")

    async def scrape(self, names: Sequence[str], *, openmetrics: bool = False) -> bytes:
        self.scraped.append(list(names))
        return b"# EOF\n" if openmetrics else b"# metrics\n"

    async def statistics(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        return self.counted


class MemoryTransport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.protocol: HttpProtocol | None = None
        self.closed = False
        self.aborted = False
        self.eof = False
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        addresses = {"peername": ["10.0.0.1", 41008], "sockname": ["127.0.0.1", 8080]}
        return addresses.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not (self.closed or self.eof), "write after the end"
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self.protocol is not None:
                asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


@dataclass
class Response:
    """One response as read from the bytes of a connection."""

    status: int
    headers: dict[str, str]
    body: bytes
    names: list[str] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """A client's connection: bytes in, bytes out."""

    def __init__(self, app: App, options: ProtocolOptions | None = None, reception: Reception | None = None) -> None:
        config = uvicorn.Config(app, interface="asgi3", lifespan="off", ws="none", log_config=None, access_log=False)
        config.load()
        config.loaded_app = app
        self.state = reception or Reception()
        loop = asyncio.get_running_loop()
        protocol = protocol_class(options or ProtocolOptions())(config, self.state, {}, loop)  # type: ignore[call-arg]
        assert isinstance(protocol, HttpProtocol)
        self.protocol = protocol
        self.transport = MemoryTransport()
        self.transport.protocol = protocol
        protocol.connection_made(self.transport)

    @property
    def written(self) -> bytes:
        return bytes(self.transport.written)

    async def feed(self, *packets: bytes) -> bytes:
        """Deliver packets, let everything that can happen happen, and return what was written so far."""
        for packet in packets:
            self.protocol.data_received(packet)
            await settle()
        return self.written

    async def leave(self) -> None:
        """The client closes the connection."""
        self.transport.closed = True
        self.protocol.connection_lost(None)
        await settle()


async def settle() -> None:
    """Let every task run until nothing moves without new input."""
    for _ in range(30):
        await asyncio.sleep(0)


def read_responses(data: bytes, *, head: bool = False) -> list[Response]:
    """Parse responses; fails on anything malformed or incomplete."""
    responses = []
    while data:
        top, separator, data = data.partition(b"\r\n\r\n")
        assert separator, top
        first, *lines = top.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = [line.split(": ", 1) for line in lines]
        names = [name for name, _ in pairs]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), f"repeated header in {names}"
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while True:
                size, _, data = data.partition(b"\r\n")
                length = int(size, 16)
                body, data = body + data[:length], data[length:]
                assert data[:2] == b"\r\n"
                data = data[2:]
                if not length:
                    break
        elif not head:
            length = int(headers.get("content-length", "0"))
            assert len(data) >= length
            body, data = data[:length], data[length:]
        responses.append(Response(int(status), headers, body, names))
    return responses


@dataclass
class Service:
    """An app over an engine and a recorder in memory."""

    engine: MemoryEngine
    telemetry: Recorder = field(default_factory=Recorder)
    settings: Settings = field(default_factory=lambda: Settings(enable_model_api=True))
    apis: tuple[str, ...] = ("Inference",)

    @property
    def app(self) -> App:
        return api_app(self.apis, self.engine, self.telemetry, self.settings)

    def connect(self, options: ProtocolOptions | None = None) -> Connection:
        """Within a running loop."""
        return Connection(self.app, options)

    def request(self, method: str, target: str, body: bytes = b"", *headers: str) -> Response:
        """One request on a connection and a loop of its own."""
        lines = [f"{method} {target} HTTP/1.1", "Host: h", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        data = "\r\n".join(lines).encode() + b"\r\n\r\n" + body

        async def exchange() -> bytes:
            return await self.connect().feed(data)

        responses = read_responses(asyncio.run(exchange()), head=method == "HEAD")
        assert len(responses) == 1
        return responses[0]


def streamed(job: Job, *pieces: bytes) -> Chunks:
    """Turn a job's reply into a stream and put these pieces behind the first one."""
    job.chunks = Chunks()
    for piece in pieces:
        job.chunks.put(piece)
    return job.chunks


def predicting() -> Service:
    """The inference port with one model `m`."""
    return Service(MemoryEngine("m"))


def post(size: int) -> bytes:
    """The head of a prediction with a body of that many bytes."""
    return b"POST /predictions/m HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size


def converse(*packets: bytes, options: ProtocolOptions | None = None) -> tuple[bytes, Connection, Service]:
    """Everything written on one connection for these packets."""
    here = predicting()

    async def talk() -> tuple[bytes, Connection]:
        connection = here.connect(options)
        return await connection.feed(*packets), connection

    written, connection = asyncio.run(talk())
    return written, connection, here
