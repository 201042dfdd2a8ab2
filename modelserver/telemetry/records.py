"""What the event loop leaves in the ring: one small record an event. Moments are monotonic seconds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

# In the place of a status: the end of a response that came in pieces, and was recorded when it began.
ENDED: Final = -1

# In the place of the moment of the reply: a response in pieces has begun.
BEGUN: Final = -1.0


class Reading(NamedTuple):
    """One value of a metric of this machine; the host name is not among its label values."""

    name: str
    value: float
    labels: tuple[str, ...] = ("Host",)


class MetricUpdate(Protocol):
    """One update of a worker metric; the hostname is not among its dimensions."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def type(self) -> str: ...
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


class RequestTraced(msgspec.Struct, gc=False):
    """One prediction for which there is to be a trace; `method` "gRPC" has gRPC's status."""

    method: str
    target: str
    status: int
    received: float
    responded: float
    worker: str
    model: str
    label: str
    request_id: str
    sent: float
    replied: float
    handler: float  # seconds inside the handler, 0 if unknown
    traceparent: str
    tracestate: str


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


class HostReadings(msgspec.Struct, gc=False):
    """A look at this machine."""

    moment: float
    readings: Sequence[Reading]


class VersionsChanged(msgspec.Struct, gc=False):
    """The versions of a model that are registered from now on; none: the model is gone."""

    model: str
    versions: tuple[str, ...]
    default: str


class Announcement(msgspec.Struct):
    """A bare line for standard output."""

    line: str


class Scrape(msgspec.Struct):
    """A wish for the Prometheus text; `answer` lives on `loop`."""

    names: tuple[str, ...]
    openmetrics: bool
    answer: asyncio.Future[bytes]
    loop: asyncio.AbstractEventLoop

    def resolve(self, text: bytes) -> None:
        """Answer, on the loop; the asker may have left."""
        if not self.answer.done():
            self.answer.set_result(text)


class StatisticsRequest(msgspec.Struct):
    """A wish for the statistics of all model versions; `answer` lives on `loop`."""

    answer: asyncio.Future[Mapping[tuple[str, str], Mapping[str, Any]]]
    loop: asyncio.AbstractEventLoop

    def resolve(self, statistics: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
        """Answer, on the loop; the asker may have left."""
        if not self.answer.done():
            self.answer.set_result(statistics)


class Flush(msgspec.Struct):
    """`written` is set once everything before this record is written."""

    written: threading.Event


Event = RequestDone | RequestTraced | BatchDone | ServerLine | Printed | WorkerLoaded | WorkerMetrics | HostReadings
Control = Announcement | VersionsChanged | Scrape | StatisticsRequest | Flush
Record = Event | Control
