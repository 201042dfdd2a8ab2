"""Metric definitions: the YAML file that says which metrics exist, of which type, with which labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"
TYPES: Final = (COUNTER, GAUGE, HISTOGRAM)

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_KEYS: Final = ("dimensions", "ts_metrics", "model_metrics")
_SPEC_KEYS: Final = ("name", "unit", "dimensions", "buckets")

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # as the workers read it


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric; `labels` in order, the host name last."""

    name: str
    type: str
    unit: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = BUCKETS  # upper bounds without +Inf, histograms only
    help: str = ""  # a sentence; "" for the one that names type and unit


@dataclass(slots=True)
class Definitions:
    """Both sections of a file, and what was wrong with it: `errors` were replaced by defaults, `warnings` ignored."""

    server: list[Definition] = field(default_factory=list)
    model: list[Definition] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def load_definitions(path: Path, default_path: Path) -> Definitions:
    """Read a file; what cannot be read in it comes from the default file."""
    found = Definitions()
    defaults = _Defaults(default_path)
    try:
        content = _read_mapping(path)
    except _Unusable as error:
        found.errors.append(str(error))
        found.server = defaults.section("ts_metrics")
        found.model = defaults.section("model_metrics")
        return found
    found.warnings += [f"Unknown key in metrics configuration: {key}" for key in content if key not in _KEYS]
    found.server = _read_section("ts_metrics", content, defaults, found)
    found.model = _read_section("model_metrics", content, defaults, found)
    return found


class _Unusable(Exception):
    """A file, section or entry that cannot be read; the text says why."""


class _Defaults:
    """The default file, read only when something of it is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def section(self, section: str) -> list[Definition]:
        """A whole section; empty if the default file is broken itself."""
        try:
            content = _read_mapping(self._path)
        except _Unusable:
            return []
        return _read_section(section, content, self, Definitions())

    def entry(self, section: str, name: object) -> list[Definition]:
        """The entry of that name, if there is one."""
        return [definition for definition in self.section(section) if definition.name == name]


def _read_mapping(path: Path) -> Mapping[Any, Any]:
    try:
        content = yaml.load(path.read_bytes(), _Loader)
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise _Unusable(f"{path}: {error}") from error
    if not isinstance(content, dict):
        raise _Unusable(f"{path}: not a mapping")
    return content


def _read_section(
    section: str, content: Mapping[Any, Any], defaults: _Defaults, found: Definitions
) -> list[Definition]:
    types = content.get(section) or {}
    if not isinstance(types, dict):
        found.errors.append(f"{section}: not a mapping")
        return defaults.section(section)
    definitions = []
    for kind, specs in types.items():
        if kind not in TYPES:
            found.warnings.append(f"Unknown metric type in {section}: {kind}")
            continue
        if specs is not None and not isinstance(specs, list):
            found.errors.append(f"{section}.{kind}: not a list")
            definitions += [default for default in defaults.section(section) if default.type == kind]
            continue
        for spec in specs or ():
            definitions += _read_entry(section, kind, spec, defaults, found)
    return definitions


def _read_entry(section: str, kind: str, spec: object, defaults: _Defaults, found: Definitions) -> list[Definition]:
    try:
        if not isinstance(spec, dict):
            raise _Unusable(f"{section}.{kind}: not a mapping: {spec}")
        definition = _read_spec(kind, spec, host_label=() if section == "ts_metrics" else ("Hostname",))
    except _Unusable as error:
        found.errors.append(str(error))
        return defaults.entry(section, spec.get("name") if isinstance(spec, dict) else None)
    unknown = [key for key in spec if key not in _SPEC_KEYS]
    found.warnings += [f"Unknown key in metric {definition.name}: {key}" for key in unknown]
    return [definition]


def _read_spec(kind: str, spec: Mapping[Any, Any], host_label: tuple[str, ...]) -> Definition:
    name, unit, labels = spec.get("name"), spec.get("unit"), spec.get("dimensions")
    shown = f"name: {_shown(name)}, unit: {_shown(unit)}, dimensions: {_shown(labels)}"
    if not isinstance(name, str) or not name:
        raise _Unusable(f"Metric name cannot be empty. {shown}")
    if not isinstance(unit, str) or not unit:
        raise _Unusable(f"Metric unit cannot be empty. {shown}")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise _Unusable(f"Metric dimensions must be a list of names. {shown}")
    return Definition(name, kind, unit, (*labels, *host_label), _buckets(spec, shown))


def _buckets(spec: Mapping[Any, Any], shown: str) -> tuple[float, ...]:
    buckets = spec.get("buckets")
    if buckets is None:
        return BUCKETS
    if not isinstance(buckets, list) or not all(type(bound) in (int, float) for bound in buckets):
        raise _Unusable(f"Metric buckets must be a list of numbers. {shown}")
    return tuple(sorted({float(bound) for bound in buckets if bound < float("inf")}))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return "null" if value is None else str(value)
