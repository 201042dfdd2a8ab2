"""A stage for a model version: a virtual clock, workers that live in memory, a journal of what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from harness import clock
from modelserver.archives.archive import Archive
from modelserver.archives.model_directory import ModelDirectory
from modelserver.engine.batching import scheduler_of, version_kind
from modelserver.engine.job import Job
from modelserver.engine.ports import WorkerOwner, WorkerSpec
from modelserver.engine.slot import SlotOwner, WorkerSlot
from modelserver.errors import Cause, Certificate, ServerError
from modelserver.settings.model_options import Requested, resolve
from modelserver.settings.table import Settings
from modelserver.wire.frames import (
    PREDICT,
    Batch,
    Cancel,
    Hello,
    Load,
    Loaded,
    Metric,
    Part,
    Replies,
    Reply,
    Request,
    Stop,
)


class MemoryWorker:
    """A worker process that only remembers what it was told."""

    def __init__(self, spec: WorkerSpec, owner: WorkerOwner) -> None:
        self.spec = spec
        self.owner = owner
        self.frames: list[Load | Batch | Cancel | Stop] = []
        self.killed: Certificate | None = None
        self.dead = False
        self.dies_by_itself = True  # when killed
        self.resident = 100 << 20  # bytes

    def send(self, frame: Load | Batch | Cancel | Stop) -> None:
        self.frames.append(frame)

    def kill(self, reason: Certificate | None = None) -> None:
        if self.killed is None:
            self.killed = reason
            if self.dies_by_itself:
                asyncio.get_running_loop().call_soon(self.die, reason)

    def memory(self) -> int:
        return self.resident

    def die(self, certificate: Certificate | None = None, *, unread: int = 0) -> None:
        if not self.dead:
            self.dead = True
            self.owner.gone(certificate or Certificate(Cause.EXIT, "exited with status 1", exit_code=1), unread=unread)

    def connect(self) -> None:
        self.owner.connected(Hello(self.spec.slot, self.spec.generation, 0, 4711, "", "3.11"))

    def load(self, code: int = 200) -> None:
        self.owner.spawned(4711, ["python", "worker"], "")
        self.connect()
        self.owner.received(Loaded(code, "loaded model m"))

    @property
    def batch(self) -> Batch:
        """The last batch it got."""
        return next(frame for frame in reversed(self.frames) if isinstance(frame, Batch))

    def answer(self, *bodies: bytes) -> None:
        self.owner.received(Replies(self.batch.id, 200, "", [Reply(i, body) for i, body in enumerate(bodies)]))


class MemoryPort:
    """Makes workers that load at once, unless `manual`."""

    def __init__(self) -> None:
        self.workers: list[MemoryWorker] = []
        self.manual = False

    def start(self, spec: WorkerSpec, owner: WorkerOwner) -> MemoryWorker:
        worker = MemoryWorker(spec, owner)
        self.workers.append(worker)
        if not self.manual:
            asyncio.get_running_loop().call_soon(worker.load)
        return worker


@dataclass
class Journal:
    """Listens to the engine."""

    lines: list[str] = field(default_factory=list)
    batches: list[tuple[list[str], bool]] = field(default_factory=list)
    loads: int = 0
    versions: list[tuple[str, list[str], str]] = field(default_factory=list)

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        self.lines.append(f"{level} {message}")

    def printed(self, worker: str, stream: str, line: str) -> None:
        self.lines.append(f"{stream} {line}")

    def batch_done(
        self,
        worker: str,
        model: str,
        ids: Sequence[str],
        sent: float,
        replied: float,
        metrics: Sequence[Metric],
        ok: bool,
    ) -> None:
        self.batches.append((list(ids), ok))

    def worker_loaded(self, worker: str, milliseconds: float) -> None:
        self.loads += 1

    def worker_metrics(self, worker: str, model: str, metrics: Sequence[Metric]) -> None:
        self.lines.append("metrics")

    def versions_changed(self, model: str, versions: Sequence[str], default: str) -> None:
        self.versions.append((model, list(versions), default))


class Scene:
    """One version, its port and its journal."""

    def __init__(self, yaml: dict[str, Any] | None = None, **requested: Any) -> None:
        self.port = MemoryPort()
        self.journal = Journal()
        self.options, _ = resolve(
            "m",
            "1.0",
            Requested(**requested),
            yaml,
            Settings(),
            manifest_runtime="python",
            gpus=0,
            cpus=2,
            at_startup=False,
        )
        archive = Archive(
            url="m.mar",
            model_name="m",
            version="1.0",
            handler="h.py",
            runtime="python",
            location=ModelDirectory(Path("/nowhere"), Path("/nowhere")),
            manifest=None,
            config={},
            config_error=None,
            downloaded=None,
        )
        self.version = version_kind(self.options)(
            archive=archive,
            options=self.options,
            scheduler=scheduler_of(replace(self.options, job_queue_bytes=1000)),
            slots=self._slot,
            events=self.journal,
        )
        self.answers: dict[Job, asyncio.Future[Job]] = {}
        self._ids = count(9000)
        self._names = count()

    def _slot(self, owner: SlotOwner) -> WorkerSlot:
        number = next(self._ids)
        return WorkerSlot(
            spec=WorkerSpec(
                number, 0, f"W-{number}-m_1.0", "/nowhere", (), concurrent=self.options.async_communication
            ),
            load=Load("m", "/nowhere", "h.py", self.options.batch_size, None, "", True, 1000, ""),
            startup_timeout=self.options.startup_timeout,
            response_timeout=self.options.response_timeout,
            window=self.options.max_retry_timeout_in_sec,
            port=self.port,
            events=self.journal,
            owner=owner,
        )

    async def grow(self, workers: int) -> list[MemoryWorker]:
        self.version.grow(workers)
        await settle()
        return self.port.workers[-workers:]

    def submit(self, label: str = "default", kind: int = PREDICT, *, size: int = 0, timeout: float = 0.0) -> Job:
        request = Request(str(next(self._names)), [Part("body", "", b"")], [], {})
        job = Job(request, "m", label, 0.0, self._done, kind)
        job.size = size
        job.timeout = timeout
        self.answers[job] = asyncio.get_running_loop().create_future()
        self.version.submit(job)
        return job

    def _done(self, job: Job) -> None:
        self.answers[job].set_result(job)

    async def reply_of(self, job: Job) -> Reply:
        """The job's reply; raises its error."""
        await self.answers[job]
        if job.reply is None:
            assert job.error is not None
            raise job.error
        return job.reply

    async def error_of(self, job: Job) -> ServerError:
        """The error of a job that fails."""
        with pytest.raises(ServerError) as raised:
            await self.reply_of(job)
        return raised.value


async def settle() -> None:
    """Let everything that is due happen, without any time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


def scenario(**options: Any) -> Callable[[Callable[[Scene], Awaitable[None]]], Callable[[], None]]:
    """Runs an async test in virtual time, with a scene of these options."""

    def decorate(test: Callable[[Scene], Awaitable[None]]) -> Callable[[], None]:
        def wrapper() -> None:
            async def main() -> None:
                await test(Scene(**options))

            clock.run(main())

        wrapper.__name__ = getattr(test, "__name__", "scenario")
        wrapper.__doc__ = test.__doc__
        return wrapper

    return decorate
