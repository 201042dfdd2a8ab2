"""The Prometheus text format 0.0.4, with the comma after the last label that scrapers of this server know."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from modelserver.errors import ConfigurationError
from modelserver.telemetry.definitions import Definition
from modelserver.telemetry.doubles import prometheus_double
from modelserver.telemetry.families import Family, escape

_METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def check_exposable(definitions: Iterable[Definition]) -> None:
    """Raises ConfigurationError for names that cannot be exposed, or are claimed twice."""
    claimed: set[str] = set()
    for definition in definitions:
        if not _METRIC_NAME.fullmatch(definition.name):
            raise ConfigurationError(f"Invalid metric name: {definition.name}")
        for label in definition.labels:
            if not _LABEL_NAME.fullmatch(label):
                raise ConfigurationError(f"Invalid metric label name: {label}")
        for name in {definition.name, *Family(definition).sample_names()}:
            if name in claimed:
                raise ConfigurationError(f"Collector already registered that provides name: {name}")
            claimed.add(name)


def render(families: Iterable[Family], names: Sequence[str] = ()) -> str:
    """The exposition text: everything, or the samples with these names (a family's name stands for all its samples)."""
    wanted = frozenset(names)
    return "".join(_render_family(family, wanted) for family in families)


def _render_family(family: Family, wanted: frozenset[str]) -> str:
    definition = family.definition
    samples = family.samples()
    if wanted and definition.name not in wanted:
        samples = (sample for sample in samples if sample[0] in wanted)
    text = "".join(f"{name}{labels} {prometheus_double(value)}\n" for name, labels, value in samples)
    if wanted and not text:
        return ""
    head = f"Torchserve prometheus {definition.type} metric with unit: {escape(definition.unit)}"
    return f"# HELP {definition.name} {head}\n# TYPE {definition.name} {definition.type}\n{text}"
