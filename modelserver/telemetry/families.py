"""Stored metrics: families of counters, gauges and histograms, one child for each set of label values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from modelserver.telemetry.definitions import COUNTER, HISTOGRAM, Definition
from modelserver.telemetry.doubles import prometheus_double

# Of one family: label values come from handlers, and one that labels by request must not fill the memory.
SERIES_LIMIT: Final = 10_000

Sample = tuple[str, str, float]  # name, label block with its braces, value


class Child(ABC):
    """One series. `labels` is the inside of the label block, `A="x",B="y",`."""

    __slots__ = ("_labels", "_name")

    def __init__(self, name: str, labels: str) -> None:
        self._name = name
        self._labels = labels

    @abstractmethod
    def update(self, value: float) -> None:
        """Take one update in. Raises ValueError for a value that the type cannot take."""

    @abstractmethod
    def samples(self) -> Iterator[Sample]:
        """The samples in the order of the exposition."""

    def _block(self, extra: str = "") -> str:
        labels = self._labels + extra
        return f"{{{labels}}}" if labels else ""


class Counter(Child):
    """A sum of increments."""

    __slots__ = ("_value",)

    def __init__(self, name: str, labels: str) -> None:
        super().__init__(name, labels)
        self._value = 0.0

    def update(self, value: float) -> None:
        if value < 0:
            raise ValueError("Counter metric update value cannot be negative")
        self._value += value

    def samples(self) -> Iterator[Sample]:
        yield self._name, self._block(), self._value


class Gauge(Child):
    """The last value."""

    __slots__ = ("_value",)

    def __init__(self, name: str, labels: str) -> None:
        super().__init__(name, labels)
        self._value = 0.0

    def update(self, value: float) -> None:
        self._value = value

    def samples(self) -> Iterator[Sample]:
        yield self._name, self._block(), self._value


class Histogram(Child):
    """Counts of values by upper bound."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, name: str, labels: str, bounds: Sequence[float]) -> None:
        super().__init__(name, labels)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def update(self, value: float) -> None:
        # A NaN compares false with every bound: it belongs to +Inf alone.
        index = bisect_left(self._bounds, value) if value == value else len(self._bounds)
        self._counts[index] += 1
        self._sum += value

    def samples(self) -> Iterator[Sample]:
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            yield f"{self._name}_bucket", self._block(f'le="{prometheus_double(bound)}",'), float(total)
        yield f"{self._name}_count", self._block(), float(total)
        yield f"{self._name}_sum", self._block(), self._sum


class Family:
    """All series of one definition."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._children: dict[tuple[str, ...], Child] = {}
        if not definition.labels:
            self.child(())

    def child(self, values: tuple[str, ...]) -> Child:
        """The series with these label values, made on first sight.

        Raises ValueError for a wrong number of them, and beyond SERIES_LIMIT series.
        """
        if child := self._children.get(values):
            return child
        if len(values) != len(self.definition.labels):
            raise ValueError("Incorrect number of labels.")
        if len(self._children) >= SERIES_LIMIT:
            raise ValueError(f"More than {SERIES_LIMIT} series; further label values are not recorded.")
        child = self._children[values] = self._new_child(values)
        return child

    def _new_child(self, values: tuple[str, ...]) -> Child:
        name, labels = self.definition.name, _label_text(self.definition.labels, values)
        if self.definition.type == HISTOGRAM:
            return Histogram(name, labels, self.definition.buckets)
        return Counter(name, labels) if self.definition.type == COUNTER else Gauge(name, labels)

    def sample_names(self) -> tuple[str, ...]:
        """Names that samples of this family have."""
        name = self.definition.name
        if self.definition.type == HISTOGRAM:
            return f"{name}_bucket", f"{name}_count", f"{name}_sum"
        return (name,)

    def samples(self) -> Iterator[Sample]:
        """The samples of all series."""
        for child in self._children.values():
            yield from child.samples()


def _label_text(names: Sequence[str], values: Sequence[str]) -> str:
    return "".join(f'{name}="{_escape_label(value)}",' for name, value in zip(names, values, strict=True))


def escape(text: str) -> str:
    """Back-slashes and line ends as the exposition format wants them."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    return escape(text).replace('"', '\\"')
