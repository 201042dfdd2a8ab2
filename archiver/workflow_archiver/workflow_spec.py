"""What the archiver reads in a workflow's specification."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from workflow_archiver.workflow_archiver_error import WorkflowArchiverError


def functions_in(spec_file: str) -> list[str]:
    """The nodes of the graph that are no models, sorted: functions that a handler must have.

    Raises WorkflowArchiverError for a file that is no specification, OSError for one that cannot be read.
    """
    try:
        spec = yaml.safe_load(Path(spec_file).read_bytes())
    except yaml.YAMLError as error:
        raise WorkflowArchiverError(f"{spec_file} is not YAML: {error}") from error
    models, graph = (spec.get(key) if isinstance(spec, dict) else None for key in ("models", "dag"))
    if not isinstance(models, dict) or not isinstance(graph, dict):
        raise WorkflowArchiverError(f"{spec_file} is no workflow specification: it needs the mappings models and dag.")
    return sorted(set(_nodes(graph)) - {str(name) for name in models})


def _nodes(graph: dict[Any, Any]) -> Iterator[str]:
    for node, successors in graph.items():
        yield str(node)
        yield from (str(name) for name in successors or () if name)
