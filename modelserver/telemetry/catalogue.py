"""The metrics by name, and where each mode sends their updates: into log lines or into stored families."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from modelserver.telemetry.definitions import COUNTER, Definition, Definitions
from modelserver.telemetry.exposition import check_exposable, render
from modelserver.telemetry.families import Family

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


@dataclass(frozen=True, slots=True)
class Series:
    """One metric with one set of label values. Its log message is `head`, value, `tail`, then ids and time."""

    head: str  # `HandlerTime.ms:`
    tail: str  # `|#ModelName:probe,Level:Model|#hostname:node1,`
    store: Callable[[float], None] | None  # None: updates are logged


class Catalogue:
    """Definitions put to work in one metrics mode. One thread uses it."""

    def __init__(self, definitions: Definitions, mode: str) -> None:
        """Raises ConfigurationError where stored metrics have names that cannot be exposed."""
        stored_server, stored_model = _stored(definitions, mode)
        check_exposable([*stored_server, *stored_model])
        self.server = Section(definitions.server, stored_server)
        self.model = Section(definitions.model, stored_model)

    def render(self, names: Sequence[str]) -> str:
        """The Prometheus text of what is stored, see `exposition.render`."""
        return render([*self.server.families.values(), *self.model.families.values()], names)


class Section:
    """The metrics of one section of the definitions."""

    def __init__(self, definitions: Sequence[Definition], stored: Sequence[Definition]) -> None:
        self._definitions = {definition.name: definition for definition in definitions}
        self.families = {definition.name: Family(definition) for definition in stored}
        self._series: dict[tuple[str, tuple[str, ...]], Series] = {}

    def series(self, name: str, values: tuple[str, ...]) -> Series | None:
        """The series with these label values, the host name last; None if no such metric is defined.

        Raises ValueError for a wrong number of values.
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
    tail = f"|#{text}|#hostname:{host[1]},".replace("\n", "\\n")  # a line feed in a value must not end the line
    return Series(f"{definition.name}.{definition.unit}:", tail, store)


def _stored(definitions: Definitions, mode: str) -> tuple[list[Definition], list[Definition]]:
    if mode == PROMETHEUS:
        return definitions.server, definitions.model
    if mode == LEGACY:
        counters = [definition for definition in definitions.server if definition.name in _LEGACY_STORED]
        return [dataclasses.replace(definition, type=COUNTER) for definition in counters], []
    return [], []
