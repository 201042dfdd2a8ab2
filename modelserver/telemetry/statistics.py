"""What the statistics extension of Open Inference tells of every registered model version; kept only where it is on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from modelserver.telemetry.clock import Clock, nanoseconds
from modelserver.telemetry.latencies import HANDLER_TIME, model_of, version_of
from modelserver.telemetry.records import BEGUN, BatchDone, RequestDone, StatisticsRequest, VersionsChanged

_DEFAULT: Final = "default"  # the label of requests that name no version
_REMEMBERED: Final = 4096  # workers and labels

# By model and version: the members of the extension but for name and version.
VersionStatistics = Mapping[tuple[str, str], Mapping[str, Any]]


class _Duration:
    """How often, and how long in total."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0

    def add(self, ns: int, count: int = 1) -> None:
        """So many, each of which took that long."""
        self.count += count
        self.ns += ns * count

    def told(self) -> dict[str, int]:
        """As the extension writes it."""
        return {"count": self.count, "ns": self.ns}


class _Counts:
    """Of one model version since it was registered."""

    __slots__ = ("batches", "fail", "handled", "latest", "queue", "success")

    def __init__(self) -> None:
        self.success = _Duration()
        self.fail = _Duration()
        self.queue = _Duration()
        self.handled = _Duration()  # of requests, each with the time of its batch
        self.batches: dict[int, _Duration] = {}  # by their size
        self.latest: float | None = None  # arrival of a request, monotonic seconds

    def told(self, offset: float) -> dict[str, Any]:
        """As the extension writes it; `offset`: what makes seconds since 1970 of monotonic ones."""
        return {
            "last_inference": 0 if self.latest is None else int((self.latest + offset) * 1000),
            "inference_count": self.success.count,
            "execution_count": sum(batch.count for batch in self.batches.values()),
            "inference_stats": {
                "success": self.success.told(),
                "fail": self.fail.told(),
                "queue": self.queue.told(),
                **_computed(self.handled),
                "cache_hit": _nothing(),
                "cache_miss": _nothing(),
            },
            "batch_stats": [{"batch_size": size, **_computed(self.batches[size])} for size in sorted(self.batches)],
        }


class Statistics:
    """Counts requests and batches of the versions that are registered; used in the writer's thread alone."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._models: dict[str, dict[str, _Counts]] = {}  # by version
        self._defaults: dict[str, str] = {}
        self._found: dict[str | tuple[str, str], _Counts | None] = {}  # by worker, or model and label

    def versions(self, record: VersionsChanged) -> None:
        """Counts of versions that are gone go; new ones begin with none."""
        self._found.clear()
        before = self._models.pop(record.model, {})
        self._defaults.pop(record.model, None)
        if record.versions:
            self._models[record.model] = {version: before.get(version) or _Counts() for version in record.versions}
            self._defaults[record.model] = record.default

    def batch(self, record: BatchDone) -> None:
        """A batch; one that the handler has not got through tells no time, and is counted by its requests alone."""
        if not record.metrics or (handler := record.metrics[-1]).name != HANDLER_TIME:
            return
        if record.worker not in self._found:
            self._find(model_of(handler), record.worker, "")
        if counts := self._found[record.worker]:
            size, ns = len(record.ids), int(handler.value * 1e6)
            counts.handled.add(ns, size)
            if size not in counts.batches:
                counts.batches[size] = _Duration()
            counts.batches[size].add(ns)

    def request(self, record: RequestDone) -> None:
        """A prediction that is over."""
        if not record.model or record.replied == BEGUN:  # whatever its status: the end is another record
            return
        key = record.worker or (record.model, record.label)
        if key not in self._found:
            self._find(record.model, record.worker, record.label)
        counts = self._found[key]
        if counts is None:
            return
        received = record.received
        if counts.latest is None or received > counts.latest:
            counts.latest = received
        took = nanoseconds(received, record.responded)
        if record.ok:
            counts.success.add(took)
            counts.queue.add(nanoseconds(received, record.sent))
        else:
            counts.fail.add(took)

    def answer(self, record: StatisticsRequest) -> None:
        """A copy for the loop."""
        offset = self._clock.offset
        found = {
            (model, version): counts.told(offset)
            for model, versions in self._models.items()
            for version, counts in versions.items()
        }
        with suppress(RuntimeError):  # the loop has stopped: nobody waits any more
            record.loop.call_soon_threadsafe(record.resolve, found)

    def _find(self, model: str, worker: str, label: str) -> None:
        """The counts of the version that the worker serves, or that was asked for if none got the request.

        None if it is gone.
        """
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        version = version_of(worker, model) if worker else label
        if not worker and label == _DEFAULT:
            version = self._defaults.get(model, "")
        self._found[worker or (model, label)] = self._models.get(model, {}).get(version)


def _computed(handler: _Duration) -> dict[str, dict[str, int]]:
    """Reading and writing of tensors are not told apart from the way to the worker and back: not measured."""
    return {"compute_input": _nothing(), "compute_infer": handler.told(), "compute_output": _nothing()}


def _nothing() -> dict[str, int]:
    return {"count": 0, "ns": 0}
