"""The model configuration in an archive: one YAML mapping, named by `model.configFile` of the manifest."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import yaml


def read_config(directory: Path, name: str | None) -> tuple[dict[str, Any], str | None]:
    """The mapping ({} if there is none or it cannot be used) and the text of the log line that says why, if so."""
    if not name:
        return {}, None
    try:
        return _load(directory, name), None
    # Tagged nonsense such as `!!int ""` makes PyYAML raise IndexError, KeyError, AttributeError, ...
    except Exception as error:
        reason = " ".join(str(error).split())
        return {}, f"Failed to parse model config file {name}: {reason or type(error).__name__}"


def _load(directory: Path, name: str) -> dict[str, Any]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("the path leads out of the model directory")
    with (directory / path).open("rb") as file:
        document = yaml.safe_load(file)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError("the top level is not a mapping")
    for key in document:
        if not isinstance(key, str):
            raise ValueError(f"the key {key!r} is not a string")
    return document
