"""The Prometheus text format 0.0.4, with the comma after the last label that scrapers know; and OpenMetrics."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from modelserver.errors import ConfigurationError
from modelserver.telemetry.definitions import COUNTER, HISTOGRAM, Definition
from modelserver.telemetry.doubles import prometheus_double
from modelserver.telemetry.families import Family, Sample, escape

_METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_PIECE: Final = 500  # samples; about half a millisecond
_TOTAL: Final = "_total"
_END: Final = "# EOF\n"


def check_exposable(definitions: Iterable[Definition], claimed: set[str]) -> None:
    """Claim the names of all their samples. Raises ConfigurationError for names that cannot be exposed, or are claimed
    already: one of them would make the whole text unreadable.
    """
    for definition in definitions:
        _check_names(definition)
        names = {definition.name, *Family(definition).sample_names()}
        if taken := sorted(names & claimed):
            raise ConfigurationError(f"Collector already registered that provides name: {taken[0]}")
        claimed |= names


def _check_names(definition: Definition) -> None:
    if not _METRIC_NAME.fullmatch(definition.name):
        raise ConfigurationError(f"Invalid metric name: {definition.name}")
    for place, label in enumerate(definition.labels):
        if not _LABEL_NAME.fullmatch(label):
            raise ConfigurationError(f"Invalid metric label name: {label}")
        if label.startswith("__") or (label == "le" and definition.type == HISTOGRAM):
            raise ConfigurationError(f"Invalid metric label name, which Prometheus uses itself: {label}")
        if label in definition.labels[:place]:
            raise ConfigurationError(f"Metric {definition.name} has two labels named {label}")


def render(families: Iterable[Family], names: Sequence[str] = (), *, openmetrics: bool = False) -> str:
    """The exposition text: everything, or the samples with these names (a family's name stands for all its samples)."""
    return "".join(pieces(families, names, openmetrics=openmetrics))


def pieces(families: Iterable[Family], names: Sequence[str] = (), *, openmetrics: bool = False) -> Iterator[str]:
    """The same, little by little: whoever shares the interpreter gets a turn between two pieces."""
    wanted = frozenset(names)
    for family in families:
        write = _line
        if openmetrics:
            write = _counter_line if family.definition.type == COUNTER else _openmetrics_line
        samples = _wanted(family, wanted)
        text = "".join(map(write, islice(samples, _PIECE)))
        if text or not wanted:
            yield _head(family.definition, openmetrics=openmetrics) + text
        while text:
            text = "".join(map(write, islice(samples, _PIECE)))
            yield text
    if openmetrics:
        yield _END


def _wanted(family: Family, names: frozenset[str]) -> Iterator[Sample]:
    samples = family.samples()
    if not names or family.definition.name in names:
        return samples
    return (sample for sample in samples if sample[0] in names)


def _head(definition: Definition, *, openmetrics: bool) -> str:
    name = definition.name
    if openmetrics and definition.type == COUNTER:
        name = name.removesuffix(_TOTAL)
    text = definition.help or f"Torchserve prometheus {definition.type} metric with unit: {definition.unit}"
    return f"# HELP {name} {escape(text)}\n# TYPE {name} {definition.type}\n"


def _line(sample: Sample) -> str:
    name, labels, value = sample
    return f"{name}{labels} {prometheus_double(value)}\n"


def _openmetrics_line(sample: Sample) -> str:
    name, labels, value = sample
    block = f"{labels[:-2]}}}" if labels else ""  # without the last comma
    return f"{name}{block} {prometheus_double(value)}\n"


def _counter_line(sample: Sample) -> str:
    name, labels, value = sample
    return _openmetrics_line((name if name.endswith(_TOTAL) else name + _TOTAL, labels, value))
