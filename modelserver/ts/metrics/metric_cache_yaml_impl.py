"""The metrics of a worker, with definitions from a YAML file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from ts.metrics.caching_metric import Outlet
from ts.metrics.metric_cache_abstract import MetricCacheAbstract
from ts.metrics.metric_cache_errors import (
    MetricsCacheIOError,
    MetricsCacheKeyError,
    MetricsCachePyYamlError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
)
from ts.metrics.metric_type_enum import MetricTypes

# Every worker reads the file when it starts: in Python that takes 14 ms for the default one, and 2 MB.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class MetricsCacheYamlImpl(MetricCacheAbstract):
    """Reads the file at once; `initialize_cache` makes the metrics of its section `model_metrics`.

    Raises `MetricsCacheIOError`, `MetricsCachePyYamlError`, `MetricsCacheTypeError`.
    """

    def __init__(self, config_file_path: str | Path, outlet: Outlet | None = None) -> None:
        super().__init__(config_file_path, outlet)
        self._parsed_file = _parse(config_file_path)

    def initialize_cache(self) -> None:
        """Raises `MetricsCacheKeyError` or `MetricsCacheValueError` where the section is missing or faulty."""
        section = self._parse_metrics_section()
        if not section or not isinstance(section, dict):
            raise MetricsCacheValueError("Missing `model_metrics` specification")
        for kind, definitions in section.items():
            metric_type = _metric_type(kind)
            for definition in definitions or ():
                self._define(metric_type, definition)

    def _parse_metrics_section(self, key: str = "model_metrics") -> Any:
        """The content of one section. Raises `MetricsCacheKeyError` if there is none."""
        if not isinstance(self._parsed_file, dict) or key not in self._parsed_file:
            raise MetricsCacheKeyError(f"'{key}' key not found in yaml file: '{key}'")
        return self._parsed_file[key]

    def _define(self, metric_type: MetricTypes, definition: dict[str, Any]) -> None:
        try:
            name, unit, labels = definition["name"], definition["unit"], definition["dimensions"]
        except (KeyError, TypeError) as error:
            raise MetricsCacheKeyError(f"Key not found in cache spec: {error}") from error
        self.add_metric_to_cache(name, unit, labels, metric_type)


def _metric_type(kind: Any) -> MetricTypes:
    try:
        return MetricTypes(kind)
    except ValueError as error:
        raise MetricsCacheKeyError(f"Invalid metric type: {error}") from error


def _parse(path: str | Path) -> Any:
    try:
        os.stat(path)  # noqa: PTH116  # its TypeError names what is wrong with a path that is none
        with Path(path).open(encoding="utf-8") as file:
            return yaml.load(file, _Loader)
    except OSError as error:
        raise MetricsCacheIOError(f"Error reading file: Error reading file {path}: {error}") from error
    except yaml.YAMLError as error:
        raise MetricsCachePyYamlError(f"Error parsing file: Error parsing file {path}: {error}") from error
    except TypeError as error:
        raise MetricsCacheTypeError(f"Error reading file: {error}") from error
