"""The manifest of a model archive, `MAR-INF/MANIFEST.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from modelserver.errors import BadRequest, Cause, Certificate, InvalidModel

FOLDER: Final = "MAR-INF"
FILE_NAME: Final = "MANIFEST.json"
RUNTIMES: Final = ("python", "python3", "LSP")
DEFAULT_VERSION: Final = "1.0"

# Old text, which names a file that no longer exists: clients match it.
_UNREADABLE = "Failed to parse signature.json."


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the server reads from a manifest; absent members are None unless they have a default."""

    created_on: str | None = None
    archiver_version: str | None = None
    runtime: str | None = "python"  # None: not one of `RUNTIMES`
    model_name: str | None = None
    model_version: str = DEFAULT_VERSION
    handler: str | None = None
    serialized_file: str | None = None
    model_file: str | None = None
    requirements_file: str | None = None
    config_file: str | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False)  # the whole document


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of an unpacked archive, None if it has none. Raises InvalidModel."""
    try:
        document = (directory / FOLDER / FILE_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(f"cannot be read: {error.strerror}") from error
    return parse_manifest(document)


def parse_manifest(document: bytes) -> Manifest:
    """Raises InvalidModel for what is no JSON object or has members of wrong types."""
    try:
        text = document.decode("utf-8-sig")
        if not text.strip():
            raise InvalidModel("Missing Model entry in manifest file.")
        raw = json.loads(text)
        # Numbers count as the text they were written with: version 1.10 is not version 1.1.
        members = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"is not JSON: {error}") from error
    model = _model_entry(members)
    runtime = members.get("runtime", "python")
    version = _text(model, "modelVersion")
    return Manifest(
        created_on=_text(members, "createdOn"),
        archiver_version=_text(members, "archiverVersion"),
        runtime=runtime if runtime in RUNTIMES else None,
        model_name=_text(model, "modelName"),
        model_version=DEFAULT_VERSION if version is None else version,
        handler=_text(model, "handler"),
        serialized_file=_text(model, "serializedFile"),
        model_file=_text(model, "modelFile"),
        requirements_file=_text(model, "requirementsFile"),
        config_file=_text(model, "configFile"),
        raw=raw,
    )


def check_runtime(value: str) -> None:
    """Raises BadRequest if a registration asks for a runtime that does not exist."""
    if value not in RUNTIMES:
        raise BadRequest(f"Invalid RuntimeType value: {value}")


def _model_entry(members: object) -> dict[str, Any]:
    if members is None or (isinstance(members, dict) and members.get("model", {}) is None):
        raise InvalidModel("Missing Model entry in manifest file.")
    model = members.get("model", {}) if isinstance(members, dict) else None
    if not isinstance(model, dict):
        raise _unreadable("has no JSON object as `model`")
    return model


def _text(members: dict[str, Any], name: str) -> str | None:
    value = members.get(name)
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str):
        return value
    raise _unreadable(f"has a {name} that is no text")


def _unreadable(why: str) -> InvalidModel:
    return InvalidModel(_UNREADABLE, certificate=Certificate(Cause.BAD_ARCHIVE, f"{FOLDER}/{FILE_NAME} {why}"))
