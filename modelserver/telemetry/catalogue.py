"""The metrics by name, and where each mode sends their updates: into log lines or into stored families."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from modelserver.errors import ConfigurationError
from modelserver.telemetry.definitions import COUNTER, TYPES, Definition, Definitions
from modelserver.telemetry.exposition import check_exposable, pieces
from modelserver.telemetry.families import Family
from modelserver.telemetry.latencies import Latencies, with_latencies
from modelserver.telemetry.records import MetricUpdate

LOG: Final = "LOG"
PROMETHEUS: Final = "PROMETHEUS"
LEGACY: Final = "LEGACY"

# Stored in legacy mode, as counters whatever their definition says.
_LEGACY_STORED: Final = frozenset(
    {"ts_inference_requests_total", "ts_inference_latency_microseconds", "ts_queue_latency_microseconds"}
)

_SERIES: Final = (
    10_000  # remembered per catalogue; label values come from handlers, so their number has no bound of its own
)


# A handler that names a metric after each request must not fill the memory.
DETECTED_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Series:
    """One metric with one set of label values. Its log message is `head`, value, `tail`, then ids and time."""

    head: str  # `HandlerTime.ms:`
    tail: str  # `|#ModelName:probe,Level:Model|#hostname:node1,`
    store: Callable[[float], None] | None  # None: updates are logged


class Catalogue:
    """Definitions put to work in one metrics mode. One thread uses it."""

    def __init__(self, definitions: Definitions, mode: str, *, detects: bool = False, histograms: bool = False) -> None:
        """With `detects`, unknown worker metrics may be defined by `detect`. With `histograms`, the `latencies` are
        kept, in a mode that exposes anything.

        Raises ConfigurationError where stored metrics have names that cannot be exposed.
        """
        stored_server, stored_model = _stored(definitions, mode)
        if histograms and mode != LOG:
            stored_server = with_latencies(stored_server, definitions.server)
        self._claimed: set[str] = set()  # names of samples
        check_exposable([*stored_server, *stored_model], self._claimed)
        self._stores_model = mode == PROMETHEUS
        self.detects = detects
        self._detected = 0
        self.server = Section(definitions.server, stored_server)
        self.model = Section(definitions.model, stored_model)
        self.latencies = Latencies(self.server.families) if histograms and mode != LOG else None

    def detect(self, update: MetricUpdate) -> None:
        """Define a worker metric by its first update: its type, unit and label names are fixed from then on.

        Raises ValueError for one that has no type or a name that cannot be exposed, and beyond DETECTED_LIMIT metrics.
        """
        if self._detected >= DETECTED_LIMIT:
            raise ValueError(f"{DETECTED_LIMIT} metrics have been detected; further ones have to be in metrics_config.")
        kind = update.type.lower()
        if kind not in TYPES:
            raise ValueError(f"Its type is not known: {update.type or 'the line has none'}")
        labels = (*[name for name, _ in update.dimensions], "Hostname")
        definition = Definition(update.name, kind, update.unit, labels)
        if self._stores_model:
            try:
                check_exposable([definition], self._claimed)
            except ConfigurationError as error:
                raise ValueError(str(error)) from None
        self.model.add(definition, stored=self._stores_model)
        self._detected += 1

    def pieces(self, names: Sequence[str], *, openmetrics: bool) -> Iterator[str]:
        """The text of what is stored, see `exposition.pieces`."""
        families = [*self.server.families.values(), *self.model.families.values()]
        return pieces(families, names, openmetrics=openmetrics)


class Section:
    """The metrics of one section of the definitions."""

    def __init__(self, definitions: Sequence[Definition], stored: Sequence[Definition]) -> None:
        self._definitions = {definition.name: definition for definition in definitions}
        self.families = {definition.name: Family(definition) for definition in stored}
        self._series: dict[tuple[str, tuple[str, ...]], Series] = {}

    def add(self, definition: Definition, *, stored: bool) -> None:
        """One more metric, of a new name."""
        self._definitions[definition.name] = definition
        if stored:
            self.families[definition.name] = Family(definition)

    def series(self, name: str, values: tuple[str, ...]) -> Series | None:
        """The series with these label values, the host name last; None if no such metric is defined.

        Raises ValueError for a wrong number of values, and where a stored metric has too many series already.
        """
        key = name, values
        if series := self._series.get(key):
            return series
        definition = self._definitions.get(name)
        if definition is None:
            return None
        if len(values) != len(definition.labels):
            raise ValueError("Incorrect number of labels.")
        if len(self._series) >= _SERIES:
            self._series.clear()
        family = self.families.get(name)
        series = self._series[key] = _series(definition, values, family.child(values).update if family else None)
        return series


def _series(definition: Definition, values: tuple[str, ...], store: Callable[[float], None] | None) -> Series:
    *labels, host = zip(definition.labels, values, strict=True)
    text = ",".join(f"{name}:{value}" for name, value in labels)
    head, tail = f"{definition.name}.{definition.unit}:", f"|#{text}|#hostname:{host[1]},"
    return Series(_one_line(head), _one_line(tail), store)


def _one_line(text: str) -> str:
    """Names and values come from handlers, and must not end the line."""
    return text.replace("\n", "\\n")


def _stored(definitions: Definitions, mode: str) -> tuple[list[Definition], list[Definition]]:
    if mode == PROMETHEUS:
        return definitions.server, definitions.model
    if mode == LEGACY:
        counters = [definition for definition in definitions.server if definition.name in _LEGACY_STORED]
        return [dataclasses.replace(definition, type=COUNTER) for definition in counters], []
    return [], []
