"""Errors of the metrics API; each is also the builtin error of its kind."""

from __future__ import annotations

import yaml


class MetricsCacheIOError(OSError):
    """The definitions cannot be read."""


class MetricsCachePyYamlError(yaml.YAMLError):
    """The definitions are not YAML."""


class MetricsCacheTypeError(TypeError):
    """An argument has the wrong type."""


class MetricsCacheValueError(ValueError):
    """An argument or a definition has a value that does not fit."""


class MetricsCacheKeyError(KeyError):
    """A metric, or a key of a definition, does not exist."""


class GeneralMetricsCacheError(Exception):
    """Anything else."""

    def __init__(self, message: object) -> None:
        super().__init__(f"Generic error: {message}")
