"""The models of a saved configuration: the value of `model_snapshot`, JSON in TorchServe's form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelserver.settings.forms import form
from modelserver.settings.yaml_values import is_integer

_TIMEOUT: Final = 120  # seconds, where the entry says nothing

# JSON name -> field, in the order of the file
_REQUIRED: Final = {
    "minWorkers": "min_workers",
    "maxWorkers": "max_workers",
    "batchSize": "batch_size",
    "maxBatchDelay": "max_batch_delay",
}
_OPTIONAL: Final = {"responseTimeout": "response_timeout", "startupTimeout": "startup_timeout"}
_TEXTS: Final = {"runtimeType": "runtime", "handler": "handler"}
# Readers that cut the JSON out of its line know of `\:` and `\n` alone: what else the line would escape is no JSON.
_GUARDED: Final = {ord(character): f"\\u{ord(character):04x}" for character in "=#!"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedVersion:
    """One model version: where its archive is, and what does not come from the archive again."""

    mar_name: str  # in the model store, or an absolute path
    default: bool
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay: int  # ms
    response_timeout: int = _TIMEOUT  # s
    startup_timeout: int = _TIMEOUT  # s
    runtime: str = "python"
    parallel_level: int = 0
    handler: str = ""  # given at its registration


SavedModels = Mapping[str, Mapping[str, SavedVersion]]  # model name -> version -> entry


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What `model_snapshot` holds."""

    name: str  # of the file it was written to
    model_count: int  # of model versions; nothing is restored unless it is positive
    models: SavedModels

    def __str__(self) -> str:
        """As a configuration file may have it, on one line."""
        return json.dumps({"name": self.name, "modelCount": self.model_count, "models": _models(self.models)})


@form("JSON as a saved configuration has it")
def parse_snapshot(text: str) -> Snapshot:
    """Raises ValueError that begins with the name of the key."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"no valid JSON: {error}") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("models"), dict):
        raise _malformed("must be a JSON object with a member models")
    models = {model: _versions(model, versions) for model, versions in tree["models"].items()}
    return Snapshot(str(tree.get("name", "")), _integer("modelCount", tree.get("modelCount", 0)), models)


def format_snapshot(name: str, created: int, models: SavedModels) -> str:
    """The JSON text; `created` in milliseconds since 1970."""
    tree = {
        "name": name,
        "modelCount": sum(map(len, models.values())),
        "created": created,
        "models": _models(models),
    }
    return json.dumps(tree, indent=2, ensure_ascii=False).translate(_GUARDED)


def _versions(model: str, versions: object) -> dict[str, SavedVersion]:
    if not isinstance(versions, dict):
        raise _malformed(f'models["{model}"] must be a JSON object')
    return {version: _entry(f'models["{model}"]["{version}"]', entry) for version, entry in versions.items()}


def _entry(place: str, members: object) -> SavedVersion:
    if not isinstance(members, dict):
        raise _malformed(f"{place} must be a JSON object")
    given = {name: value for name, value in members.items() if value is not None}
    for name in ("marName", "defaultVersion", *_REQUIRED):
        if name not in given:
            raise _malformed(f"{place} has no {name}")
    if not (isinstance(given["marName"], str) and given["marName"]):
        raise _malformed(f"{place}: marName must be a text")
    integers = {**_REQUIRED, **_OPTIONAL, "parallelLevel": "parallel_level"}
    values: dict[str, Any] = {
        field: _integer(f"{place}: {name}", given[name]) for name, field in integers.items() if name in given
    }
    values |= {field: str(given[name]) for name, field in _TEXTS.items() if name in given}
    return SavedVersion(mar_name=given["marName"], default=given["defaultVersion"] in (True, "true"), **values)


def _integer(name: str, value: object) -> int:
    """Numbers lose their fraction, numeric texts count."""
    if isinstance(value, float) or (isinstance(value, str) and re.fullmatch("[+-]?[0-9]{1,20}", value)):
        try:
            value = int(value)
        except (ValueError, OverflowError):  # NaN and infinity
            pass
    if not is_integer(value):
        raise _malformed(f"{name} must be a number: {json.dumps(value)}")
    return value


def _models(models: SavedModels) -> dict[str, dict[str, dict[str, object]]]:
    return {
        model: {version: _members(entry) for version, entry in versions.items()} for model, versions in models.items()
    }


def _members(entry: SavedVersion) -> dict[str, object]:
    integers = {name: getattr(entry, field) for name, field in {**_REQUIRED, **_OPTIONAL}.items()}
    members = {"defaultVersion": entry.default, "marName": entry.mar_name, **integers, "runtimeType": entry.runtime}
    if entry.parallel_level > 0:
        members["parallelLevel"] = entry.parallel_level
    if entry.handler:
        members["handler"] = entry.handler
    return members


def _malformed(reason: str) -> ValueError:
    return ValueError(f"model_snapshot: {reason}")
