"""The keys of a model's YAML that the server reads; all others are the handler's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelserver.settings.notices import Notice
from modelserver.settings.torchrun import Torchrun, read_torchrun
from modelserver.settings.yaml_values import is_integer, shown

_Reader = Callable[[object], object]  # raises ValueError with the text of the warning
_LOWEST: Final = -(2**31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What a YAML states; None, 0 and "" where it is silent."""

    min_workers: int = 0
    max_workers: int = 0
    batch_size: int | None = None
    max_batch_delay: int | None = None  # ms
    response_timeout: int | None = None  # s
    startup_timeout: int | None = None  # s
    job_queue_size: int = 0
    use_job_ticket: bool = False
    max_retry_timeout_in_sec: int = 300
    client_timeout_in_mills: int = 0
    device_type: str = ""  # cpu, gpu
    device_ids: tuple[int, ...] | None = None
    parallel_type: str = ""  # pp, tp, pptp, custom
    parallel_level: int = 0
    torchrun: Torchrun | None = None
    continuous_batching: bool = False
    sequence_batching: bool = False
    sequence_max_idle_msec: int = 0
    sequence_timeout_msec: int = 0
    max_num_sequence: int = 1
    max_sequence_job_queue_size: int = 1
    async_communication: bool = False
    use_venv: bool = False


def read_yaml(yaml: Mapping[Any, object], gpus: int) -> tuple[Stated, list[Notice]]:
    """What the mapping states, and warnings about values that are ignored. `gpus` bounds the device ids."""
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for key, value in yaml.items():
        if key not in _KEYS:
            continue
        field, read = _KEYS[key]
        try:
            values[field] = read(value)
        except ValueError as error:
            warnings.append(str(error))
            continue
        if key == "torchrun":
            values["torchrun"], complaints = read_torchrun(values["torchrun"])
            values["parallel_level"] = values["torchrun"].nproc_per_node
            warnings += complaints
    warnings += _drop_unknown_devices(values, gpus)
    return Stated(**values), [Notice("WARN", "archive.model.ModelConfig", warning) for warning in warnings]


def _drop_unknown_devices(values: dict[str, Any], gpus: int) -> list[str]:
    for device in values.get("device_ids") or ():
        if not 0 <= device < gpus:
            values["device_ids"] = None
            return [f"Invalid deviceId:{device}, ignore deviceIds list"]
    return []


def _integer(
    key: str,
    kind: str = "integer",
    *,
    floor: int = _LOWEST,
    minimum: int = _LOWEST,
    spelled: str = "",
) -> _Reader:
    """Values below `floor` are raised, those below `minimum` refused; `spelled` is the key when the type is wrong."""

    def read(value: object) -> int:
        if not is_integer(value):
            raise ValueError(f"Invalid {spelled or key}: {shown(value)}, should be {kind}")
        if value < minimum:
            raise ValueError(f"Invalid {key}:{value}")
        return max(value, floor)

    return read


def _boolean(key: str) -> _Reader:
    def read(value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"Invalid {key}: {shown(value)}, should be true or false")
        return value

    return read


def _word(key: str, name: str, words: tuple[str, ...], choice: str) -> _Reader:
    """One of the words in any letter case; `name` is the key as the warning about unknown words spells it."""

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"Invalid {key}: {shown(value)}, should be {choice}")
        if value.lower() not in words:
            raise ValueError(f"Invalid {name}:{value}")
        return value.lower()

    return read


def _device_ids(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or not all(is_integer(device) for device in value):
        raise ValueError(f"Invalid deviceIds: {shown(value)}, should be list of integer")
    return tuple(value) or None


def _mapping(value: object) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise ValueError(f"Invalid torchrun: {shown(value)}, should be Torchrun parameters")
    return value


_POSITIVE: Final = "positive int"
_KEYS: Final[dict[str, tuple[str, _Reader]]] = {
    "minWorkers": ("min_workers", _integer("minWorkers", floor=1)),
    "maxWorkers": ("max_workers", _integer("maxWorkers", minimum=0)),
    "batchSize": ("batch_size", _integer("batchSize", floor=1)),
    "maxBatchDelay": ("max_batch_delay", _integer("maxBatchDelay", minimum=0)),
    "responseTimeout": ("response_timeout", _integer("responseTimeout", minimum=1)),
    "startupTimeout": ("startup_timeout", _integer("startupTimeout", minimum=1)),
    "jobQueueSize": ("job_queue_size", _integer("jobQueueSize", _POSITIVE, floor=0)),
    "useJobTicket": ("use_job_ticket", _boolean("useJobTicket")),
    "maxRetryTimeoutInSec": (
        "max_retry_timeout_in_sec",
        _integer("maxRetryTimeoutInSec", floor=0, spelled="maxRetryTimeoutInMin"),
    ),
    "clientTimeoutInMills": (
        "client_timeout_in_mills",
        _integer("clientTimeoutInMills", "positive long", floor=0),
    ),
    "deviceType": ("device_type", _word("deviceType", "DeviceType", ("cpu", "gpu"), "cpu, or gpu")),
    "deviceIds": ("device_ids", _device_ids),
    "parallelType": (
        "parallel_type",
        _word("parallelType", "ParallelType", ("pp", "tp", "pptp", "custom"), "pp, tp, pptp, or custom"),
    ),
    "parallelLevel": ("parallel_level", _integer("parallelLevel", minimum=0)),
    "torchrun": ("torchrun", _mapping),
    "continuousBatching": ("continuous_batching", _boolean("continuousBatching")),
    "sequenceBatching": ("sequence_batching", _boolean("sequenceBatching")),
    "sequenceMaxIdleMSec": ("sequence_max_idle_msec", _integer("sequenceMaxIdleMSec", _POSITIVE, floor=0)),
    "sequenceTimeoutMSec": ("sequence_timeout_msec", _integer("sequenceTimeoutMSec", _POSITIVE, floor=0)),
    "maxNumSequence": ("max_num_sequence", _integer("maxNumSequence", _POSITIVE, floor=1)),
    "maxSequenceJobQueueSize": (
        "max_sequence_job_queue_size",
        _integer("maxSequenceJobQueueSize", _POSITIVE, floor=1),
    ),
    "asyncCommunication": ("async_communication", _boolean("asyncCommunication")),
    "useVenv": ("use_venv", _boolean("useVenv")),
}
