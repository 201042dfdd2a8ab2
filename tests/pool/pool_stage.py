"""Real workers for the pool's tests: a nursery, a pool, an owner that records, and models written on the spot."""

from __future__ import annotations

import asyncio
import json
import os
import re
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from modelserver.engine.ports import WorkerSpec
from modelserver.errors import Certificate
from modelserver.pool.nursery import Nursery
from modelserver.pool.pool import Pool
from modelserver.pool.worker import Patience, Worker
from modelserver.scratch import RunDirectory
from modelserver.wire.frames import Batch, Chunk, Hello, Load, Loaded, Metric, Part, Replies, Request

ROOT = Path(__file__).parent.parent.parent
METRICS = str(ROOT / "modelserver" / "ts" / "configs" / "metrics.yaml")
FRAME_LIMIT = 1 << 22
DEADLINE = 60.0  # seconds

ECHO = """
def handle(data, context):
    return None if data is None else [bytes(row["body"]) for row in data]
"""

# Evaluates the body of a request.
EVAL = """
import json, os, random, signal, sys
def handle(data, context):
    return None if data is None else [json.dumps(eval(bytes(row["body"]).decode())) for row in data]
"""


class Owner:
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []  # names of the calls, `printed` left out
        self.pid = 0
        self.command: list[str] = []
        self.frames: list[Loaded | Replies | Chunk] = []
        self.metrics: list[Metric] = []
        self.lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self.certificate: Certificate | None = None
        self.unread = 0
        self._changed = asyncio.Event()

    def spawned(self, pid: int, command: Sequence[str], why: str) -> None:
        self.pid = pid
        self.command = list(command)
        self._note("spawned")

    def connected(self, hello: Hello) -> None:
        self._note("connected")

    def received(self, frame: Loaded | Replies | Chunk) -> None:
        self.frames.append(frame)
        self._note("received")

    def reported(self, metrics: list[Metric]) -> None:
        self.metrics += metrics
        self._note("reported")

    def printed(self, stream: str, line: str) -> None:
        assert self.certificate is None
        self.lines[stream].append(line)
        self._changed.set()

    def gone(self, certificate: Certificate, *, unread: int) -> None:
        self.certificate = certificate
        self.unread = unread
        self._note("gone")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def death(self) -> Certificate:
        await self.until(lambda: self.certificate is not None)
        assert self.certificate is not None
        return self.certificate


class Model:
    """A model directory, and its worker."""

    def __init__(self, pool: Pool, directory: Path, handler: str) -> None:
        directory.mkdir(exist_ok=True)
        (directory / "h.py").write_text(textwrap.dedent(handler))
        self.pool = pool
        self.directory = directory
        self.owner = Owner()
        self._batches = 0

    def start(self, *, slot: int = 9000, generation: int = 1, **spec: Any) -> Worker:
        spec.setdefault("python_path", (str(self.directory),))
        name = f"W-{slot}-m_1.0"
        return self.pool.start(WorkerSpec(slot, generation, name, str(self.directory), **spec), self.owner)

    async def load(self, **spec: Any) -> Worker:
        """Start a worker and load the model; its outcome is the first frame."""
        return await self.loaded(self.start(**spec))

    async def loaded(self, worker: Worker) -> Worker:
        """Load the model as soon as the worker has connected."""
        await self.owner.until(lambda: "connected" in self.owner.calls or self.owner.certificate is not None)
        worker.send(Load("m", str(self.directory), "h.py", 1, None, "", True, FRAME_LIMIT, METRICS))
        await self.owner.until(lambda: bool(self.owner.frames) or self.owner.certificate is not None)
        return worker

    def batch(self, body: bytes = b"") -> Batch:
        self._batches += 1
        return Batch(self._batches, 0, [Request(f"r{self._batches}", [Part("body", "", body)], [], {})])

    async def ask(self, worker: Worker, body: bytes = b"") -> bytes:
        """Body of the answer to one request."""
        count = len(self.owner.frames)
        worker.send(self.batch(body))
        await self.owner.until(lambda: len(self.owner.frames) > count or self.owner.certificate is not None)
        frame = self.owner.frames[-1]
        assert isinstance(frame, Replies), (frame, self.owner.certificate)
        assert frame.code == 200, (frame, self.owner.lines)
        return frame.replies[0].body

    async def ask_json(self, worker: Worker) -> Any:
        return json.loads(await self.ask(worker))


def environment(directory: Path, **more: str) -> dict[str, str]:
    """Of a server; modules that a test puts into `modules` win against those of the same name."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_", "PYTEST"))}
    own = directory / "modules"
    own.mkdir(exist_ok=True)
    path = [str(own), str(ROOT), str(ROOT / "modelserver")]
    return {**environ, "PYTHONPATH": os.pathsep.join(path), **more}


@asynccontextmanager
async def pool_of(
    nursery: Nursery,
    directory: Path,
    *,
    hidden: str | None = None,
    variables: Mapping[str, str] | None = None,
    patience: Patience | None = None,
    hello_timeout: float = DEADLINE,
    by_hand: bool = False,
) -> AsyncIterator[Pool]:
    run_directory = RunDirectory.make(directory / "tmp")
    pool = Pool(
        run_directory.path,
        FRAME_LIMIT,
        re.compile(hidden) if hidden else None,
        dict(variables or {}),
        patience=patience,
        hello_timeout=hello_timeout,
        by_hand=by_hand,
    )
    await pool.open(nursery)
    try:
        yield pool
    finally:
        async with asyncio.timeout(DEADLINE):
            await pool.close()
        run_directory.remove()


def run(
    main: Coroutine[Any, Any, None], factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def exists(pid: int) -> bool:
    """A process with this pid is there, a zombie included."""
    return Path(f"/proc/{pid}").exists()


def children(pid: int) -> list[int]:
    paths = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in paths for child in path.read_text().split()]


def eventually(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too late"
        time.sleep(0.01)


def descriptors(pid: int | str = "self") -> list[str]:
    """What the descriptors of a process are: paths, `socket:[4711]`, ..."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(path.readlink()))
        except FileNotFoundError:
            continue  # the one that lists them
    return links


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").decode()


def oom_score() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


def threads_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("Threads:")[2].split()[0])
