"""A manifest as a server reads it, with what is wrong with it."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from model_archiver.content import Content
from model_archiver.formats import MANIFEST_FILE_NAME, MAR_INF
from model_archiver.manifest_components.manifest import RuntimeType

PLACE: Final = f"{MAR_INF}/{MANIFEST_FILE_NAME}"
FILE_MEMBERS: Final = ("serializedFile", "modelFile", "requirementsFile", "configFile")
TEXT_MEMBERS: Final = ("modelName", "modelVersion", "handler", *FILE_MEMBERS)

_RUNTIMES: Final = [runtime.value for runtime in RuntimeType]
_UNADDRESSABLE: Final = re.compile(r"[/\x00-\x1f\x7f-\x9f]")


class BadManifest(Exception):
    """A manifest that no server accepts; the text says why."""


def read_manifest(content: Content) -> dict[str, Any]:
    """The document, {} if there is none. Raises BadManifest, and what damaged archives raise."""
    if PLACE not in content:
        return {}
    try:
        document = json.loads(content.read(PLACE).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadManifest("not a JSON object")
    _check(document)
    return document


def model_of(document: dict[str, Any]) -> dict[str, str]:
    """The members of the model that are given, as text."""
    model = document.get("model", {})
    return {name: str(model[name]) for name in TEXT_MEMBERS if model.get(name) is not None}


def _check(document: dict[str, Any]) -> None:
    runtime = document.get("runtime", "python")
    if runtime not in _RUNTIMES:
        raise BadManifest(f"the runtime {runtime!r} is none of {', '.join(_RUNTIMES)}")
    model = document.get("model", {})
    if not isinstance(model, dict):
        raise BadManifest("the member model is not an object")
    for name in TEXT_MEMBERS:
        if isinstance(model.get(name), dict | list):
            raise BadManifest(f"model.{name} is not a text")
    if _UNADDRESSABLE.search(str(model.get("modelName") or "")):
        raise BadManifest(f"the name {model['modelName']!r} has slashes or control characters, no url could name it")
