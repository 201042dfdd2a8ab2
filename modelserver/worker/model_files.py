"""What a worker reads from the model directory before it looks for the handler."""

from __future__ import annotations

import json
import logging
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

import ts
from ts.metrics.caching_metric import Outlet
from ts.metrics.metric_cache_errors import (
    MetricsCacheIOError,
    MetricsCacheKeyError,
    MetricsCachePyYamlError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
)
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

logger = logging.getLogger(__name__)

DEFAULT_METRICS = Path(ts.__file__).with_name("configs") / "metrics.yaml"


class BadArchive(Exception):
    """A file of the archive that cannot be used; `__cause__` says why."""


def read_manifest(model_dir: Path) -> dict[str, Any] | None:
    """`MAR-INF/MANIFEST.json`, None if there is none. Raises `BadArchive`."""
    path = model_dir / "MAR-INF" / "MANIFEST.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BadArchive(f"manifest cannot be read: {error}") from error
    if not isinstance(manifest, dict):
        raise BadArchive("manifest is not a JSON object")
    return manifest


def read_model_config(model_dir: Path, manifest: dict[str, Any] | None) -> dict[str, Any]:
    """The YAML file that the manifest names as `configFile`, {} for none or an empty one. Raises `BadArchive`."""
    model = (manifest or {}).get("model")
    name = model.get("configFile") if isinstance(model, dict) else None
    if not name:
        return {}
    inside = PurePosixPath(str(name))
    if inside.is_absolute() or ".." in inside.parts:
        raise BadArchive(f"model config file {name} is outside of the archive")
    try:
        config = yaml.safe_load((model_dir / inside).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadArchive(f"model config file {name} cannot be read: {error}") from error
    if not isinstance(config, dict | None):
        raise BadArchive(f"model config file {name} is not a mapping")
    return config or {}


def read_metrics(path: str, outlet: Outlet) -> MetricsCacheYamlImpl:
    """The metrics that `path` defines, the default ones if it cannot be read: no model fails for its metrics."""
    try:
        metrics = MetricsCacheYamlImpl(path or DEFAULT_METRICS, outlet)
    except (MetricsCacheIOError, MetricsCachePyYamlError) as error:
        logger.warning("%s", error)
        metrics = MetricsCacheYamlImpl(DEFAULT_METRICS, outlet)
    try:
        metrics.initialize_cache()
    except (MetricsCacheKeyError, MetricsCacheTypeError, MetricsCacheValueError) as error:
        logger.warning("%s", error)
    return metrics
