"""What the event loop leaves in the ring: one small record an event. Moments are monotonic seconds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Protocol

import msgspec


class MetricUpdate(Protocol):
    """One update of a worker metric; the hostname is not among its dimensions."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def dimensions(self) -> Sequence[tuple[str, str]]: ...
    @property
    def request_ids(self) -> str: ...


# gc=False: tens of thousands of short-lived records must not make the collector run on the event loop. No record can be
# part of a cycle.


class RequestDone(msgspec.Struct, gc=False):
    """One HTTP response or gRPC call; see `Telemetry.request_done`."""

    remote: str
    method: str
    target: str
    version: str
    status: int
    received: float
    responded: float
    worker: str
    model: str
    label: str
    request_id: str
    sent: float
    replied: float
    ok: bool


class BatchDone(msgspec.Struct, gc=False):
    """One answered batch. `done` is when the engine was through with the reply."""

    worker: str
    ids: Sequence[str]
    sent: float
    replied: float
    done: float
    metrics: Sequence[MetricUpdate]


class ServerLine(msgspec.Struct, gc=False):
    """A line of the server itself; `logger` without its prefix."""

    moment: float
    level: str
    logger: str
    message: str
    thread: str


class Printed(msgspec.Struct, gc=False):
    """A line that a worker wrote."""

    moment: float
    worker: str
    stream: str
    line: str


class WorkerLoaded(msgspec.Struct, gc=False):
    """A worker process has loaded its model."""

    moment: float
    worker: str
    milliseconds: float


class WorkerMetrics(msgspec.Struct, gc=False):
    """Updates of worker metrics outside a batch."""

    moment: float
    worker: str
    metrics: Sequence[MetricUpdate]


class Announcement(msgspec.Struct):
    """A bare line for standard output."""

    line: str


class Scrape(msgspec.Struct):
    """A wish for the Prometheus text; `answer` lives on `loop`."""

    names: tuple[str, ...]
    answer: asyncio.Future[bytes]
    loop: asyncio.AbstractEventLoop

    def resolve(self, text: bytes) -> None:
        """Answer, on the loop; the asker may have left."""
        if not self.answer.done():
            self.answer.set_result(text)


class Flush(msgspec.Struct):
    """`written` is set once everything before this record is written."""

    written: threading.Event


Event = RequestDone | BatchDone | ServerLine | Printed | WorkerLoaded | WorkerMetrics
Control = Announcement | Scrape | Flush
Record = Event | Control
