"""One entry of the `models` property: `{"<model>": {"<version>": {...}}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelserver.settings.misspelt import nearest
from modelserver.settings.notices import Notice, printable
from modelserver.settings.values import Models
from modelserver.settings.yaml_values import is_integer, shown

RUNTIMES: Final = ("python", "python3", "LSP")

# parameter -> (field, smallest value that counts)
_INTEGERS: Final = {
    "minWorkers": ("min_workers", 1),
    "maxWorkers": ("max_workers", 1),
    "batchSize": ("batch_size", 1),
    "maxBatchDelay": ("max_batch_delay", 0),
    "responseTimeout": ("response_timeout", 1),
    "startupTimeout": ("startup_timeout", 1),
}
PARAMETERS: Final = (*_INTEGERS, "runtimeType")
_IGNORED: Final = ("defaultVersion", "marName", "parallelLevel")  # configurations have them, and nothing reads them
_LOGGER: Final = "util.ConfigManager"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the property says about one model version; None where it is silent."""

    min_workers: int | None = None
    max_workers: int | None = None
    batch_size: int | None = None
    max_batch_delay: int | None = None  # ms
    response_timeout: int | None = None  # s
    startup_timeout: int | None = None  # s
    runtime: str | None = None


def find_entry(models: Models, model: str, version: str) -> tuple[Entry, list[Notice]]:
    """The entry, empty if there is none, and errors about values that are ignored."""
    values: dict[str, Any] = {}
    notices: list[Notice] = []
    for parameter, value in models.get(model, {}).get(version, {}).items():
        try:
            values |= _read(parameter, value)
        except (ValueError, OverflowError):
            expected = "an integer" if parameter in _INTEGERS else f"one of {', '.join(RUNTIMES)}"
            place = f"{model}:{version}, parameter: {parameter}"
            text = f"Invalid value for model: {place}: {shown(value)}, expected {expected}"
            notices.append(Notice("ERROR", _LOGGER, printable(text)))
        else:
            notices += _misspelt(model, version, parameter)
    return Entry(**values), notices


def _misspelt(model: str, version: str, parameter: str) -> list[Notice]:
    near = None if parameter in PARAMETERS or parameter in _IGNORED else nearest(parameter, PARAMETERS)
    text = f"Unknown parameter of model: {model}:{version}, parameter: {parameter}: did you mean {near}?"
    return [Notice("WARN", _LOGGER, printable(text))] if near else []


def _read(parameter: str, value: object) -> Mapping[str, object]:
    """The field and its value; empty for what does not count. Raises ValueError, OverflowError."""
    if parameter == "runtimeType":
        if value not in RUNTIMES:
            raise ValueError(value)
        return {"runtime": value}
    if parameter not in _INTEGERS:
        return {}
    field, minimum = _INTEGERS[parameter]
    number = _coerce(value)
    return {field: number} if number >= minimum else {}


def _coerce(value: object) -> int:
    """Numbers lose their fraction, numeric strings count."""
    if isinstance(value, float) or (isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,20}", value)):
        value = int(value)
    if not is_integer(value):
        raise ValueError(value)
    return value
