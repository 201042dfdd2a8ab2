"""What is in an archive, as one document."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from model_archiver.content import Content, open_content
from model_archiver.handler_entry import NoEntry, find_classes, find_entry, find_imports
from model_archiver.handler_place import source_file, split_handler
from model_archiver.manifest_file import PLACE, model_of, read_manifest
from model_archiver.requirements_file import name_of, read_lines
from model_archiver.weights import kind_of

_COMPILED: Final = re.compile(r"\.(?:cpython-|cp)(\d)(\d+)[^/]*\.(?:so|pyd|pyc)$")
_TORCH: Final = ("torch", "torchvision", "torchaudio", "torchtext")
_T = TypeVar("_T")


def inspect(path: Path) -> dict[str, Any]:
    """Everything that can be told of an archive or model directory without loading it; members are None if unknown.

    Raises Unreadable, BadManifest, and what damaged archives raise.
    """
    with open_content(path) as content:
        document = read_manifest(content)
        model = model_of(document)
        return {
            "archive": str(path),
            "form": content.form,
            "packed_bytes": path.stat().st_size if path.is_file() else None,
            "unpacked_bytes": sum(file.size for file in content.files),
            "manifest": document if PLACE in content else None,
            "handler": _handler(content, model.get("handler", "")),
            "serialized_file": _weights(content, model.get("serializedFile", "")),
            "model_file": _model_file(content, model.get("modelFile", "")),
            "requirements": _requirements(content, model.get("requirementsFile", "")),
            "config": _config(content, model.get("configFile", "")),
            "imports": _imports(content, model),
            "python": _pythons(content),
            "torch": _torch(content, model.get("requirementsFile", "")),
            "files": [{"name": file.place, "bytes": file.size} for file in content.files],
        }


def _handler(content: Content, handler: str) -> dict[str, Any] | None:
    if not handler:
        return None
    place = source_file(content, handler)
    entry = _told(lambda: find_entry(content.read(place), split_handler(handler)[2])) if place else None
    return {"name": handler, "file": place or None, "entry": entry}


def _weights(content: Content, name: str) -> dict[str, Any] | None:
    if name not in content:
        return None
    return {"name": name, "kind": kind_of(content, name) or None}


def _model_file(content: Content, name: str) -> dict[str, Any] | None:
    if name not in content:
        return None
    return {"name": name, "classes": _told(lambda: find_classes(content.read(name)))}


def _requirements(content: Content, name: str) -> list[str] | None:
    return [line.text for line in read_lines(_text(content, name))] if name in content else None


def _config(content: Content, name: str) -> Any:
    """The document; None too for what is no YAML, which `verify` complains about."""
    try:
        return yaml.safe_load(content.read(name)) if name in content else None
    except Exception:  # PyYAML raises many kinds
        return None


def _imports(content: Content, model: dict[str, str]) -> list[str]:
    """The packages that handler and model file import and the archive does not bring."""
    places = {source_file(content, model.get("handler", "")), model.get("modelFile")}
    sources = [content.read(place) for place in places if place and place in content]
    found = {name for source in sources for name in _told(lambda source=source: find_imports(source)) or ()}  # type: ignore[misc]
    brought = {file.place.partition("/")[0].partition(".")[0] for file in content.files}
    return sorted(found - brought - sys.stdlib_module_names - {"ts", "__future__"})


def _pythons(content: Content) -> list[str]:
    """The versions of Python that compiled modules of the archive are for."""
    found = {match.groups() for file in content.files if (match := _COMPILED.search(file.place))}
    return [".".join(version) for version in sorted(found)]


def _torch(content: Content, name: str) -> list[str]:
    """The requirements that decide about the version of torch."""
    if name not in content:
        return []
    return [line.text for line in read_lines(_text(content, name)) if name_of(line) in _TORCH]


def _text(content: Content, name: str) -> str:
    return content.read(name).decode("utf-8", "replace")


def _told(find: Callable[[], _T]) -> _T | None:
    """What is found; None in a source that is no Python, which `verify` complains about."""
    try:
        return find()
    except (SyntaxError, ValueError, RecursionError, NoEntry):
        return None
