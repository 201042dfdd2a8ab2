"""The keys of a model's YAML that the server reads; all others are the handler's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelserver.settings.misspelt import nearest
from modelserver.settings.notices import Notice, printable
from modelserver.settings.open_inference import Declaration, read_declaration
from modelserver.settings.torchrun import Torchrun, read_torchrun
from modelserver.settings.yaml_values import is_integer, shown

_Reader = Callable[[object], object]  # raises ValueError with the text of the warning
_LOWEST: Final = -(2**31)
_LIKENESS: Final = 0.85  # of a misspelt key; high, because all unknown keys are the handler's to use
_FROM_0: Final = "integer from 0"
_FROM_1: Final = "integer from 1"
_BOOLEAN: Final = "`true` or `false`"


@dataclass(frozen=True, slots=True)
class Key:
    """One key that the server reads."""

    field: str  # of `Stated`
    read: _Reader
    form: str  # what its value looks like
    help: str


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
    max_requests_per_worker: int | None = None
    max_worker_memory_in_mb: int | None = None
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
    open_inference: Declaration = Declaration()  # noqa: RUF009  # frozen


def read_yaml(yaml: Mapping[Any, object], gpus: int) -> tuple[Stated, list[Notice]]:
    """What the mapping states, and warnings about values that are ignored. `gpus` bounds the device ids."""
    values: dict[str, Any] = {}
    warnings: list[str] = []
    for key, value in yaml.items():
        if key not in KEYS:
            warnings += _misspelt(key)
            continue
        try:
            values[KEYS[key].field] = KEYS[key].read(value)
        except ValueError as error:
            warnings.append(str(error))
            continue
        if key == "torchrun":
            values["torchrun"], complaints = read_torchrun(values["torchrun"])
            values["parallel_level"] = values["torchrun"].nproc_per_node
            warnings += complaints
        elif key == "openInference":
            values["open_inference"], complaints = read_declaration(values["open_inference"])
            warnings += complaints
    warnings += _drop_unknown_devices(values, gpus)
    return Stated(**values), [Notice("WARN", "archive.model.ModelConfig", printable(warning)) for warning in warnings]


def _misspelt(key: object) -> list[str]:
    near = nearest(str(key), KEYS, _LIKENESS)
    return [f"Unknown key {key}: did you mean {near}?"] if near else []


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


def _mapping(key: str, content: str) -> _Reader:
    def read(value: object) -> Mapping[object, object]:
        if not isinstance(value, Mapping):
            raise ValueError(f"Invalid {key}: {shown(value)}, should be {content}")
        return value

    return read


_POSITIVE: Final = "positive int"
KEYS: Final[dict[str, Key]] = {
    "minWorkers": Key("min_workers", _integer("minWorkers", floor=1), _FROM_1, "workers; needs `maxWorkers`"),
    "maxWorkers": Key("max_workers", _integer("maxWorkers", minimum=0), _FROM_0, "most workers; needs `minWorkers`"),
    "batchSize": Key("batch_size", _integer("batchSize", floor=1), _FROM_1, "requests of a batch; default 1"),
    "maxBatchDelay": Key(
        "max_batch_delay",
        _integer("maxBatchDelay", minimum=0),
        _FROM_0,
        "ms that a request waits for its batch to fill; default 100",
    ),
    "responseTimeout": Key(
        "response_timeout",
        _integer("responseTimeout", minimum=1),
        _FROM_1,
        "s that a prediction may take; default `default_response_timeout`",
    ),
    "startupTimeout": Key(
        "startup_timeout",
        _integer("startupTimeout", minimum=1),
        _FROM_1,
        "s that loading the model may take; default `default_startup_timeout`",
    ),
    "jobQueueSize": Key(
        "job_queue_size",
        _integer("jobQueueSize", _POSITIVE, floor=0),
        _FROM_0,
        "requests that may wait; 0 or unset: `job_queue_size`",
    ),
    "maxRequestsPerWorker": Key(
        "max_requests_per_worker",
        _integer("maxRequestsPerWorker", floor=0),
        _FROM_0,
        "requests after which a worker is replaced; 0: never; default `max_requests_per_worker`",
    ),
    "maxWorkerMemoryInMB": Key(
        "max_worker_memory_in_mb",
        _integer("maxWorkerMemoryInMB", floor=0),
        _FROM_0,
        "MiB above which a worker is replaced; 0: never; default `max_worker_memory_mb`",
    ),
    "useJobTicket": Key(
        "use_job_ticket", _boolean("useJobTicket"), _BOOLEAN, "refuse a request (503) unless a worker is idle"
    ),
    "maxRetryTimeoutInSec": Key(
        "max_retry_timeout_in_sec",
        _integer("maxRetryTimeoutInSec", floor=0, spelled="maxRetryTimeoutInMin"),
        _FROM_0,
        "s from the first failure in which a worker is started again; default 300; 0: never started again",
    ),
    "clientTimeoutInMills": Key(
        "client_timeout_in_mills",
        _integer("clientTimeoutInMills", "positive long", floor=0),
        _FROM_0,
        "ms after which a client gets 408; default 0: never",
    ),
    "deviceType": Key(
        "device_type",
        _word("deviceType", "DeviceType", ("cpu", "gpu"), "cpu, or gpu"),
        "`cpu` or `gpu`",
        "where the model runs; default: `gpu` where there is one",
    ),
    "deviceIds": Key("device_ids", _device_ids, "list of integers", "the GPUs it may use; default all"),
    "parallelType": Key(
        "parallel_type",
        _word("parallelType", "ParallelType", ("pp", "tp", "pptp", "custom"), "pp, tp, pptp, or custom"),
        "`pp`, `tp`, `pptp` or `custom`",
        "pipeline, tensor or both kinds of parallelism, or the handler's own",
    ),
    "parallelLevel": Key(
        "parallel_level",
        _integer("parallelLevel", minimum=0),
        _FROM_0,
        "processes (`custom`: devices) of a worker; counts with `parallelType`",
    ),
    "torchrun": Key(
        "torchrun",
        _mapping("torchrun", "Torchrun parameters"),
        "mapping, see below",
        "how the processes of a parallel worker are launched",
    ),
    "continuousBatching": Key(
        "continuous_batching", _boolean("continuousBatching"), _BOOLEAN, "requests join and leave a running batch"
    ),
    "sequenceBatching": Key(
        "sequence_batching",
        _boolean("sequenceBatching"),
        _BOOLEAN,
        "requests of one sequence go to one worker in order",
    ),
    "sequenceMaxIdleMSec": Key(
        "sequence_max_idle_msec",
        _integer("sequenceMaxIdleMSec", _POSITIVE, floor=0),
        _FROM_0,
        "ms without a request that end a sequence; default 0: none do",
    ),
    "sequenceTimeoutMSec": Key(
        "sequence_timeout_msec",
        _integer("sequenceTimeoutMSec", _POSITIVE, floor=0),
        _FROM_0,
        "ms that a sequence may last; default 0: any time",
    ),
    "maxNumSequence": Key(
        "max_num_sequence", _integer("maxNumSequence", _POSITIVE, floor=1), _FROM_1, "sequences at a time; default 1"
    ),
    "maxSequenceJobQueueSize": Key(
        "max_sequence_job_queue_size",
        _integer("maxSequenceJobQueueSize", _POSITIVE, floor=1),
        _FROM_1,
        "waiting requests of a sequence; default 1",
    ),
    "asyncCommunication": Key(
        "async_communication", _boolean("asyncCommunication"), _BOOLEAN, "the handler takes requests while others run"
    ),
    "useVenv": Key(
        "use_venv", _boolean("useVenv"), _BOOLEAN, "install the archive's packages in an environment of its own"
    ),
    "openInference": Key(
        "open_inference",
        _mapping("openInference", "mapping with mapping, inputs and outputs"),
        "mapping, see docs/open-inference.md",
        "tensors of the model in the Open Inference Protocol, and how handlers get them",
    ),
}
