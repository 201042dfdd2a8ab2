"""A worker by itself: how many requests it turns into rows, and results into replies, when nothing else is in the way.

The frontend's part is played here, in each server's own protocol. Batches are encoded once, replies read and dropped.
Large bodies lie in memory that modelserver's frontend and worker share: what the frontend does for these is done here
every time, from the copying in to the copying out.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from uuid import uuid4

import msgspec

from benchmarks.client import NotInTime, poll
from benchmarks.contenders import Contender
from benchmarks.figures import BODIES, Samples, codec_figure
from benchmarks.plan import BATCHED, HANDLERS, Plan
from benchmarks.processes import ProcessTree
from benchmarks.servers import clean_environment
from benchmarks.targets import MODELSERVER, TORCHSERVE
from modelserver.pool.shared_bodies import SharedBodies
from modelserver.wire.control import ORDER_VARIABLE, Spawn
from modelserver.wire.frames import PREDICT, Batch, FromWorkerReader, Load, Part, Replies, Request, encode
from modelserver.wire.places import SHARED_FROM
from modelserver.worker import nursery

_PATIENCE: Final = 60.0  # seconds for a worker to start, and for any of its answers
_RETRY: Final = 0.05  # seconds
_MODEL: Final = "echo"
_LARGEST: Final = 1 << 30  # bytes of a reply
_DROPPED: Final = bytearray(1 << 18)  # what is in it does not count

Say = Callable[[str], None]


@dataclass(frozen=True)
class Bodies:
    """Bodies of one kind."""

    title: str
    mime: str
    body: bytes


def numbers(size: int) -> bytes:
    """JSON of about so many bytes."""
    source = random.Random(0)
    return json.dumps({"features": [source.random() for _ in range(size // 20)]}).encode()


LOADS: Final = tuple(
    Bodies(title, mime, body)
    for title, (mime, body) in zip(
        BODIES,
        (
            ("application/json", json.dumps({"id": 7, "text": "a good film", "tags": ["x"]}).encode()),
            ("application/json", numbers(1 << 16)),
            ("application/json", numbers(1 << 20)),
            ("application/octet-stream", bytes(1 << 16)),
            ("application/octet-stream", bytes(1 << 20)),
        ),
        strict=True,
    )
)


Prepared = TypeVar("Prepared")


class Worker(Protocol[Prepared]):
    """A worker process that has loaded the echo, and the frontend's end of its connection."""

    def batch(self, bodies: Bodies) -> Prepared:
        """A batch of such bodies, prepared as far as it is to be."""

    def exchange(self, batch: Prepared) -> int:
        """Send a batch, read its answer; returns the bytes of that."""


class CodecBench:
    """The workers of both servers, in turns, on every kind of body."""

    def __init__(
        self, contenders: Sequence[Contender], plan: Plan, directory: Path, samples: Samples, say: Say
    ) -> None:
        self._contenders = [each for each in contenders if each.name in (MODELSERVER, TORCHSERVE)]
        self._plan = plan
        self._directory = directory
        self._samples = samples
        self._say = say

    def run(self) -> None:
        for turn in range(self._plan.rounds):
            for contender in self._contenders:
                self._say(f"codec, round {turn + 1}: {contender.title}")
                self._measure(contender, self._directory / f"{contender.name}-codec-{turn + 1}")

    def _measure(self, contender: Contender, directory: Path) -> None:
        start = start_own if contender.name == MODELSERVER else start_torchserve
        assert contender.executable is not None
        try:
            with start(contender.executable.with_name("python"), directory) as worker:
                for bodies in LOADS:
                    rate = measure_rate(worker, worker.batch(bodies), self._plan.duration)
                    self._samples.add(contender.name, codec_figure(bodies.title), rate * BATCHED)
        except (OSError, NotInTime) as error:
            self._samples.discard(contender.title, "codec", str(error))


def measure_rate(worker: Worker[Prepared], batch: Prepared, duration: float) -> float:
    """Batches a second."""
    worker.exchange(batch)
    count, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < duration:
        worker.exchange(batch)
        count += 1
    return count / elapsed


class OwnWorker:
    """modelserver's worker, behind `modelserver.wire`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = FromWorkerReader(_LARGEST)
        self._shared: SharedBodies | None = None

    def load(self, directory: Path) -> None:
        self._read_frame()  # Hello
        metrics = Path(__file__).parents[1] / "modelserver" / "ts" / "configs" / "metrics.yaml"
        load = Load(_MODEL, str(directory), "echo.py", BATCHED, None, "", True, _LARGEST, str(metrics))
        self._connection.sendall(encode(load))
        self._read_frame()  # Loaded

    def batch(self, bodies: Bodies) -> Batch | bytes:
        headers = [(b"Content-Type", bodies.mime.encode()), (b"Host", b"127.0.0.1")]
        extra = {"explain": "False", "url_path": ""}
        part = Part("body", bodies.mime, bodies.body)
        batch = Batch(1, PREDICT, [Request(str(uuid4()), [part], headers, extra) for _ in range(BATCHED)])
        return batch if len(bodies.body) >= SHARED_FROM else encode(batch)

    def exchange(self, batch: Batch | bytes) -> int:
        if isinstance(batch, bytes):
            self._connection.sendall(batch)
            return self._read_frame()
        if self._shared is None:
            self._shared = SharedBodies()
        self._connection.sendall(self._shared.encode(batch))
        return self._read_replies(self._shared)

    def close(self) -> None:
        if self._shared is not None:
            self._shared.close()

    def _read_replies(self, shared: SharedBodies) -> int:
        """Bytes of the bodies. Raises ConnectionError if the worker ends first."""
        while data := self._connection.recv(len(_DROPPED)):
            for frame in map(shared.receive, self._reader.feed(data)):
                if isinstance(frame, Replies):
                    return sum(len(reply.body) for reply in frame.replies)
        raise ConnectionResetError("the worker has ended")

    def _read_frame(self) -> int:
        (size,) = struct.unpack("<I", read(self._connection, 4))
        drop(self._connection, size)
        return int(size)


class TorchServeWorker:
    """TorchServe's worker, behind its own protocol: lengths in 32 bits, big endian; -1 ends a list."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers: dict[int, int] = {}  # by length of the batch

    def load(self, directory: Path) -> None:
        begin = b"L" + text(_MODEL) + text(str(directory)) + number(BATCHED)
        self._connection.sendall(begin + text("echo.py") + number(-1) + text("") + b"\1")
        self._read_answer()

    def batch(self, bodies: Bodies) -> bytes:
        headers = {"Content-Type": bodies.mime, "Host": "127.0.0.1", "explain": "False", "url_path": ""}
        rest = b"".join(text(name) + text(value) for name, value in headers.items()) + number(-1)
        rest += text("body") + text(bodies.mime) + number(len(bodies.body)) + bodies.body + number(-1)
        return b"I" + b"".join(text(str(uuid4())) + rest for _ in range(BATCHED)) + number(-1)

    def exchange(self, batch: bytes) -> int:
        """The second answer to the same batch has as many bytes as the first, which is taken apart."""
        self._connection.sendall(batch)
        known = self._answers.get(len(batch))
        if known is None:
            known = self._answers[len(batch)] = self._read_answer()
        else:
            drop(self._connection, known)
        return known

    def _read_answer(self) -> int:
        """Bytes of one answer. Raises OSError unless it says that all is well."""
        code, message = self._number(), self._text()
        if code != 200:
            raise OSError(f"the worker says {code} {message!r}")
        size = 4 + 4 + len(message)
        while (length := self._number()) >= 0:
            size += 4 + len(read(self._connection, length)) + self._prediction()
        return size + 4

    def _prediction(self) -> int:
        content_type, _, reason = self._text(), self._number(), self._text()
        headers = sum(8 + len(self._text()) + len(self._text()) for _ in range(self._number()))
        return 4 + len(content_type) + 4 + 4 + len(reason) + 4 + headers + 4 + len(self._text())

    def _number(self) -> int:
        return int.from_bytes(read(self._connection, 4), "big", signed=True)

    def _text(self) -> bytes:
        return read(self._connection, self._number())


def number(value: int) -> bytes:
    return value.to_bytes(4, "big", signed=True)


def text(value: str) -> bytes:
    return number(len(value.encode())) + value.encode()


def read(connection: socket.socket, size: int) -> bytes:
    """Raises ConnectionError if the worker ends first."""
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        if not (count := connection.recv_into(view)):
            raise ConnectionResetError("the worker has ended")
        view = view[count:]
    return bytes(buffer)


def drop(connection: socket.socket, size: int) -> None:
    """Read and forget. Into one small buffer: fresh memory for large answers would cost more than the workers' share.

    Raises ConnectionError if the worker ends first.
    """
    while size:
        if not (count := connection.recv_into(_DROPPED, min(size, len(_DROPPED)))):
            raise ConnectionResetError("the worker has ended")
        size -= count


@contextmanager
def workplace(directory: Path) -> Iterator[tuple[Path, Path]]:
    """A model directory with the echo in it, and a short path for a socket."""
    directory.mkdir(parents=True)
    shutil.copy(HANDLERS / "echo.py", directory)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        yield directory, Path(scratch, "s.9000")


@contextmanager
def start_own(python: Path, directory: Path) -> Iterator[Worker[Any]]:
    """modelserver's worker, as a fresh interpreter: it connects to us."""
    with workplace(directory) as (model, path), ExitStack() as stack:
        listener = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(_PATIENCE)
        order = Spawn(9000, 0, 0, str(path), "", "bench", str(model), [str(model)], {}, [], 1)
        environment = {**clean_environment(path.parent), ORDER_VARIABLE: msgspec.json.encode(order).decode()}
        command = [str(python), "-P", nursery.ENTRY, "--socket", str(path)]
        tree = ProcessTree(command, environment, model, model / "console.log")
        stack.callback(tree.stop)
        connection = stack.enter_context(closing(listener.accept()[0]))
        worker = stack.enter_context(closing(OwnWorker(patient(connection))))
        worker.load(model)
        yield worker


@contextmanager
def start_torchserve(python: Path, directory: Path) -> Iterator[Worker[Any]]:
    """TorchServe's worker, of the environment that has this interpreter."""
    (package,) = python.parent.parent.glob("lib/python*/site-packages/ts")
    with start_listening(python, package, directory) as worker:
        yield worker


@contextmanager
def start_listening(python: Path, package: Path, directory: Path) -> Iterator[Worker[Any]]:
    """A worker that speaks TorchServe's protocol, of this package `ts`: it listens, we connect."""
    with workplace(directory) as (model, path), ExitStack() as stack:
        command = [str(python), str(package / "model_service_worker.py"), "--sock-type", "unix"]
        command += ["--sock-name", str(path), "--metrics-config", str(package / "configs" / "metrics.yaml")]
        environment = {**clean_environment(path.parent), "PYTHONPATH": str(model)}
        tree = ProcessTree(command, environment, model, model / "console.log")
        stack.callback(tree.stop)
        connection = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        poll(lambda: connected(connection, path), "the worker's socket", interval=_RETRY, limit=_PATIENCE)
        worker = TorchServeWorker(patient(connection))
        worker.load(model)
        yield worker


def connected(connection: socket.socket, path: Path) -> bool:
    return connection.connect_ex(str(path)) == 0


def patient(connection: socket.socket) -> socket.socket:
    connection.settimeout(_PATIENCE)
    return connection
