"""The keys of a model configuration that servers read, with the form of their values; all others are the handler's."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any, Final

_LIKENESS: Final = 0.85


def complaints(config: dict[Any, Any]) -> Iterator[str]:
    """What a server will ignore in a configuration."""
    for key, value in config.items():
        if key in KEYS:
            form, accepts = KEYS[key]
            if not accepts(value):
                yield f"{key}: {value!r} is ignored, it should be {form}"
        elif near := difflib.get_close_matches(str(key), KEYS, 1, _LIKENESS):
            yield f"no server reads the key {key}, but {near[0]}"
    if ("minWorkers" in config) != ("maxWorkers" in config):
        yield "minWorkers and maxWorkers count only together"


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31


def _integer(least: int) -> tuple[str, Callable[[Any], bool]]:
    return f"an integer from {least}", lambda value: _is_integer(value) and value >= least


def _word(*words: str) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value.lower() in words


def _is_list_of_integers(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_integer, value))


_SWITCH: Final = ("true or false", lambda value: isinstance(value, bool))
_MAPPING: Final = ("a mapping", lambda value: isinstance(value, dict))

KEYS: Final[dict[str, tuple[str, Callable[[Any], bool]]]] = {
    "minWorkers": _integer(1),
    "maxWorkers": _integer(1),
    "batchSize": _integer(1),
    "maxBatchDelay": _integer(0),
    "responseTimeout": _integer(1),
    "startupTimeout": _integer(1),
    "jobQueueSize": _integer(0),
    "maxRequestsPerWorker": _integer(0),
    "maxWorkerMemoryInMB": _integer(0),
    "useJobTicket": _SWITCH,
    "maxRetryTimeoutInSec": _integer(0),
    "clientTimeoutInMills": _integer(0),
    "deviceType": _word("cpu", "gpu"),
    "deviceIds": ("a list of integers", _is_list_of_integers),
    "parallelType": _word("pp", "tp", "pptp", "custom"),
    "parallelLevel": _integer(0),
    "torchrun": _MAPPING,
    "continuousBatching": _SWITCH,
    "sequenceBatching": _SWITCH,
    "sequenceMaxIdleMSec": _integer(0),
    "sequenceTimeoutMSec": _integer(0),
    "maxNumSequence": _integer(1),
    "maxSequenceJobQueueSize": _integer(1),
    "asyncCommunication": _SWITCH,
    "useVenv": _SWITCH,
    "openInference": _MAPPING,
}
