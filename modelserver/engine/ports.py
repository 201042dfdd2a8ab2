"""What the engine needs from others: workers (`WorkerPort`, implemented by `pool`) and listeners (`Events`, by
`telemetry`, and `Changes`, by `snapshots`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from modelserver.errors import Certificate
from modelserver.settings.snapshot import SavedModels
from modelserver.wire.frames import Batch, Cancel, Chunk, Hello, Load, Loaded, Metric, Replies, Stop


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """Everything a worker process needs to exist; what it serves comes in the `Load` frame."""

    slot: int  # the worker id, `9000`; unique for the life of the server
    generation: int  # counts the processes of this slot, from 1
    name: str  # `W-9000-digits_1.0`
    cwd: str
    python_path: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    threads: int = 0
    executable: str = ""  # "" is the interpreter that runs the server
    fork: bool = True
    concurrent: bool = False
    launcher: tuple[str, ...] = ()  # arguments between interpreter and worker that make the interpreter a launcher
    ranks: int = 1  # processes that the launcher makes; they are one worker
    to_all_ranks: bool = False  # batches too, not the `Load` alone
    device: int | None = None  # the (first) GPU in use, by its place among those of the server


class WorkerOwner(Protocol):
    """The engine's side of a worker. Calls come in the order: spawned, connected, received..., gone (once, last)."""

    def spawned(self, pid: int, command: Sequence[str], why: str) -> None:
        """The process exists; `why` says why it was not forked but runs a fresh interpreter, "" if it was forked."""

    def connected(self, hello: Hello) -> None:
        """The process has connected and may be sent a `Load`."""

    def received(self, frame: Loaded | Replies | Chunk) -> None:
        """A frame arrived."""

    def reported(self, metrics: list[Metric]) -> None:
        """Metric updates outside a batch arrived."""

    def printed(self, stream: str, line: str) -> None:
        """The process wrote a line to `stdout` or `stderr`; line without its end."""

    def gone(self, certificate: Certificate, *, unread: int) -> None:
        """The process is dead and reaped, and its socket read to the end.

        `unread` is the number of batches, counted from the last one sent, that were certainly still (partly) unread
        when it died, so that it had not started on them.
        """


class WorkerLink(Protocol):
    """The port's side of a worker."""

    def send(self, frame: Load | Batch | Cancel | Stop) -> None:
        """Queue one frame; frames of one tick leave in one write. Never raises: a dead worker is told by `gone`."""

    def kill(self, reason: Certificate | None = None) -> None:
        """SIGKILL the process group. `gone` then carries `reason` in place of a certificate from the exit status."""

    def memory(self) -> int:
        """Resident memory of the worker in bytes, 0 if unknown."""


class WorkerPort(Protocol):
    """Makes worker processes."""

    def start(self, spec: WorkerSpec, owner: WorkerOwner) -> WorkerLink:
        """Begin to start a process; the outcome comes to the owner."""


class Gauge(Protocol):
    """Knows how busy GPUs are."""

    async def read(self, gpus: Collection[int]) -> Mapping[int, str]:
        """One line for each GPU, named by its place among those of the server; returns within seconds."""


class Changes(Protocol):
    """Keeps what is registered, for a later start."""

    async def models_changed(self, models: SavedModels) -> None:
        """Models, versions, their number of workers or a default version have changed, or were asked to.

        Returns within seconds and never raises.
        """


class Events(Protocol):
    """What the engine tells the world. Implementations return at once and never raise."""

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        """One server line; `logger` without the prefix `org.pytorch.serve.`, level as log4j writes it (`INFO`,
        `WARN`, ...).
        """

    def printed(self, worker: str, stream: str, line: str) -> None:
        """A worker wrote a line."""

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
        """A worker answered a batch, successfully or not, or died with it (`replied` 0). Monotonic seconds."""

    def worker_loaded(self, worker: str, milliseconds: float) -> None:
        """A worker process has loaded its model, that long after its start."""

    def worker_metrics(self, worker: str, model: str, metrics: Sequence[Metric]) -> None:
        """Metric updates outside a batch."""

    def versions_changed(self, model: str, versions: Sequence[str], default: str) -> None:
        """The versions of a model that are registered from now on; none: the model is gone."""
