"""Histograms of where the time of requests goes, by model and version; kept only where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from modelserver.telemetry.definitions import HISTOGRAM, Definition
from modelserver.telemetry.families import Family
from modelserver.telemetry.free_times import FreeTimes
from modelserver.telemetry.records import BatchDone, MetricUpdate, RequestDone, WorkerLoaded

_SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
_SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_LABELS: Final = ("model_name", "model_version")

REQUEST: Final = "modelserver_request_duration_seconds"
QUEUE: Final = "modelserver_queue_duration_seconds"
BATCH_WAIT: Final = "modelserver_batch_wait_seconds"
HANDLER: Final = "modelserver_handler_duration_seconds"
BATCH_SIZE: Final = "modelserver_batch_size"


def _histogram(name: str, unit: str, buckets: tuple[float, ...], text: str) -> Definition:
    return Definition(name, HISTOGRAM, unit, _LABELS, buckets, text)


DEFINITIONS: Final = (
    _histogram(
        REQUEST, "Seconds", _SECONDS, "From the arrival of a request to the end of its response, if it succeeded."
    ),
    _histogram(QUEUE, "Seconds", _SECONDS, "From the arrival of a request until it was sent to a worker."),
    _histogram(
        BATCH_WAIT, "Seconds", _SECONDS, "The part of that in which a free worker waited for its batch to fill."
    ),
    _histogram(HANDLER, "Seconds", _SECONDS, "In the handler, by batch."),
    _histogram(BATCH_SIZE, "Requests", _SIZES, "Requests in a batch."),
)

_NAMES: Final = frozenset(definition.name for definition in DEFINITIONS)
HANDLER_TIME: Final = "PredictionTime"  # which every successful batch reports last
_VERSIONS: Final = 4096  # remembered, by worker

_Observe = Callable[[float], None]


def with_latencies(stored: Sequence[Definition], defined: Sequence[Definition]) -> list[Definition]:
    """What is stored and these; a file that defines one of them as a histogram chooses its buckets."""
    buckets = {each.name: each.buckets for each in defined if each.type == HISTOGRAM}
    ours = [replace(each, buckets=buckets.get(each.name, each.buckets)) for each in DEFINITIONS]
    return [each for each in stored if each.name not in _NAMES] + ours


class _Observers(NamedTuple):
    """The series of one model version."""

    request: _Observe
    queue: _Observe
    batch_wait: _Observe
    handler: _Observe
    batch_size: _Observe


class Latencies:
    """Observes the requests that were answered with success, and the batches that they came in.

    A request waits in the queue from its arrival until it is sent; the part of this in which its worker was free is
    the wait for company.
    """

    def __init__(self, families: Mapping[str, Family]) -> None:
        """`families` holds those of DEFINITIONS."""
        self._families = families
        self._versions: dict[tuple[str, str], _Observers] = {}  # by model and worker
        self._free = FreeTimes()

    def loaded(self, record: WorkerLoaded) -> None:
        """A worker begins to serve."""
        self._free.loaded(record)

    def batch(self, record: BatchDone) -> None:
        """Comes before the requests that were in it."""
        self._free.replied(record)
        if record.metrics and (handler := record.metrics[-1]).name == HANDLER_TIME:
            observers = self._observers(model_of(handler), record.worker)
            observers.handler(handler.value / 1000)
            observers.batch_size(float(len(record.ids)))

    def request(self, record: RequestDone) -> None:
        """One prediction."""
        if not (record.ok and record.model and record.sent):
            return
        observers = self._observers(record.model, record.worker)
        free = self._free.before(record.worker, record.sent)
        observers.request(max(0.0, record.responded - record.received))
        observers.queue(max(0.0, record.sent - record.received))
        observers.batch_wait(max(0.0, record.sent - max(free, record.received)))

    def _observers(self, model: str, worker: str) -> _Observers:
        found = self._versions.get((model, worker))
        if found is None:
            if len(self._versions) >= _VERSIONS:
                self._versions.clear()
            labels = model, version_of(worker, model)
            series = [self._families[definition.name].child(labels).update for definition in DEFINITIONS]
            found = self._versions[model, worker] = _Observers(*series)
        return found


def version_of(worker: str, model: str) -> str:
    """The version that a worker serves, from its name, `W-9000-<model>_<version>`."""
    return worker.partition("-")[2].partition("-")[2].removeprefix(f"{model}_")


def model_of(update: MetricUpdate) -> str:
    """The model that an update is about."""
    return next((value for name, value in update.dimensions if name == "ModelName"), "")
