"""An engine, a record keeper and a call of grpcio that live in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
from grpc import aio

from modelserver.engine.job import Job
from modelserver.engine.requests import Ailment, Registered, Registration, Scaled, VersionStatus
from modelserver.errors import InvalidKey, ModelNotFound, ServerError, VersionNotFound
from modelserver.rpc.ports import Kind
from modelserver.rpc.services import inference_methods, management_methods, switchboard
from modelserver.rpc.switchboard import Switchboard
from modelserver.settings.table import Settings
from modelserver.wire.frames import Reply


class MemoryEngine:
    """Knows one model, `m`; answers jobs by a function, and remembers them."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.versions: list[str | None] = []
        self.cancelled: list[Job] = []
        self.calls: list[Any] = []
        self.is_healthy = True
        self.not_ready: list[str] = []  # models of the start
        self.answer: Callable[[Job], Reply | ServerError | None] = lambda job: Reply(0, b"ok")
        self.refusal: ServerError | None = None
        self.models: dict[str, list[VersionStatus]] = {}  # as described; the first version is the default one
        self.outcomes: list[ServerError | None] = []  # of the next registrations
        self.gate: asyncio.Event | None = None  # at which changes wait

    def submit(self, job: Job, version: str | None) -> None:
        if job.model != "m":
            raise ModelNotFound(f"Model not found: {job.model}")
        if self.refusal is not None:
            raise self.refusal
        self.jobs.append(job)
        self.versions.append(version)
        if (answer := self.answer(job)) is not None:
            asyncio.get_running_loop().call_soon(self.settle, job, answer)

    def settle(self, job: Job, answer: Reply | ServerError) -> None:
        """Answer a job."""
        if isinstance(answer, ServerError):
            job.fail(answer)
        else:
            job.succeed(answer)

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job)
        job.cancel()

    def healthy(self) -> bool:
        return self.is_healthy

    def unready(self) -> list[str]:
        return self.not_ready

    def ailments(self) -> list[Ailment]:
        return []

    def require(self, model: str, version: str | None) -> None:
        self.describe(model, version)

    def startup_models(self) -> list[str]:
        return []

    def describe(self, model: str, version: str | None) -> list[VersionStatus]:
        if model not in self.models:
            raise ModelNotFound(f"Model not found: {model}")
        found = [status for status in self.models[model] if version in (None, "all", status.model_version)]
        if not found:
            raise VersionNotFound(f"Model version: {version} does not exist for model: {model}")
        return found if version == "all" else found[:1]

    def list_models(self) -> list[tuple[str, str]]:
        return [(name, f"{name}.mar") for name in sorted(self.models or ["m"])]

    async def observe(self, model: str, version: str | None) -> list[VersionStatus]:
        raise ModelNotFound(f"Model not found: {model}")

    async def register(self, registration: Registration) -> Registered:
        self.calls.append(registration)
        if self.gate is not None:
            await self.gate.wait()
        self.calls.append("registered")
        if self.outcomes and (outcome := self.outcomes.pop(0)) is not None:
            raise outcome
        return Registered("m", "1.0", 1)

    async def scale(self, model: str, version: str | None, minimum: int, maximum: int, *, synchronous: bool) -> Scaled:
        self.calls.append((model, version, minimum, maximum, synchronous))
        return Scaled(minimum)

    async def unregister(self, model: str, version: str | None) -> None:
        self.calls.append((model, version))

    async def set_default(self, model: str, version: str) -> None:
        self.calls.append((model, version))


class MemoryTelemetry:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []
        self.traced: list[dict[str, Any]] = []
        self.lines: list[tuple[str, str, str]] = []
        self.counted: dict[tuple[str, str], dict[str, Any]] = {}

    def request_done(self, *facts: Any) -> None:
        self.records.append(facts)

    def request_traced(self, **facts: Any) -> None:
        self.traced.append(facts)

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        self.lines.append((level, logger, message))

    async def statistics(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        return self.counted

    @property
    def codes(self) -> list[int]:
        """The gRPC codes of the calls that are over."""
        return [facts[4] for facts in self.records if facts[1] == "gRPC"]


class Lock:
    """Lets in who shows the word."""

    def __init__(self, word: bytes) -> None:
        self.word = word
        self.kinds: list[Kind] = []

    def require(self, header: bytes, kinds: Iterable[Kind]) -> None:
        self.kinds = list(kinds)
        if header != self.word:
            raise InvalidKey("no")


TOO_LARGE = b"stands for a message that grpcio refuses"


class MemoryContext:
    """The server's side of a call whose client sends these messages; None: and then nothing more, but stays."""

    def __init__(self, *messages: bytes | None, metadata: Iterable[tuple[str, str]] = (), left: float | None = None):
        self.messages = list(messages)
        self.metadata = tuple(metadata)
        self.left = left
        self.written: list[bytes] = []
        self.ended: tuple[grpc.StatusCode, str] | None = None
        self.reads = 0
        self.address = "ipv4:127.0.0.1:1234"
        self.paper: asyncio.Event | None = None  # without which nothing can be written

    async def read(self) -> Any:
        self.reads += 1
        if not self.messages:
            return aio.EOF
        message = self.messages.pop(0)
        if message is None:
            await asyncio.Event().wait()
        if message is TOO_LARGE:
            self.address = ""
            return aio.EOF
        return message

    async def write(self, message: bytes) -> None:
        if self.paper is not None:
            await self.paper.wait()
        self.written.append(message)

    def set_code(self, code: grpc.StatusCode) -> None:
        self.ended = (code, "")

    def set_details(self, details: str) -> None:
        assert self.ended is not None
        self.ended = (self.ended[0], details)

    def peer(self) -> str:
        return self.address

    def time_remaining(self) -> float | None:
        return self.left

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata


class Port:
    """The methods of one port over a memory engine."""

    def __init__(self, kind: Kind = "inference", lock: Lock | None = None, **settings: Any) -> None:
        self.engine, self.telemetry = MemoryEngine(), MemoryTelemetry()
        configured = Settings(**settings)
        methods = inference_methods if kind == "inference" else management_methods
        self.board: Switchboard = switchboard(
            kind, methods(self.engine, configured), self.engine, self.telemetry, configured, lock
        )
        self._service = f"org.pytorch.serve.grpc.{kind}.{kind.capitalize()}APIsService"

    def begin(self, method: str, context: MemoryContext) -> asyncio.Task[bytes | None]:
        """Start a call as grpcio does; `method` of the port's own service unless it has a slash."""
        path = method if method.startswith("/") else f"/{self._service}/{method}"
        handler = self.board.service(_Details(path))
        work = handler.stream_stream if handler.response_streaming else handler.stream_unary
        return asyncio.ensure_future(work(None, context))

    async def call(self, method: str, *messages: bytes | None, **options: Any) -> MemoryContext:
        """A whole call; what a unary method returns counts as written."""
        context = MemoryContext(*messages, **options)
        response = await self.begin(method, context)
        if response is not None and context.ended is None:
            context.written.append(response)
        return context


class _Details:
    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


async def until(check: Callable[[], Any]) -> None:
    """Let the loop turn until it is so."""
    for _ in range(100_000):
        if check():
            return
        await asyncio.sleep(0)
    raise AssertionError("never")
