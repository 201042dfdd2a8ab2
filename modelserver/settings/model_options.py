"""The options of one model version: from its registration, its YAML, the `models` property and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from modelserver.settings.model_yaml import Stated, read_yaml
from modelserver.settings.models_property import Entry, find_entry
from modelserver.settings.notices import Notice
from modelserver.settings.open_inference import Declaration
from modelserver.settings.sequence_keys import SequenceKeys
from modelserver.settings.snapshot import SavedVersion
from modelserver.settings.table import Settings
from modelserver.settings.torchrun import Torchrun

T = TypeVar("T")

_UNLIMITED: Final = 2**31 - 1  # seconds, of a model under a debugger


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """What a registration asks for; None where it is silent."""

    batch_size: int | None = None  # -1 is silent too
    max_batch_delay: int | None = None  # ms; -100 is silent too
    initial_workers: int | None = None
    response_timeout: int | None = None  # s
    startup_timeout: int | None = None  # s
    runtime: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a model version is served."""

    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay: int  # ms
    response_timeout: int  # s
    startup_timeout: int  # s
    job_queue_size: int
    job_queue_bytes: int
    max_requests_per_worker: int  # 0: no limit
    max_worker_memory: int  # bytes; 0: no limit
    use_job_ticket: bool
    max_retry_timeout_in_sec: int  # 0: a dead worker is not restarted
    client_timeout_in_mills: int  # 0: never
    device_type: str  # cpu, gpu
    device_ids: tuple[int, ...] | None
    parallel_type: str  # pp, tp, pptp, custom or ""
    parallel_level: int  # ranks (custom: devices) of a worker; 0 without parallelism
    torchrun: Torchrun | None  # for pp, tp and pptp with a level
    continuous_batching: bool
    sequence_batching: bool
    sequence_max_idle_msec: int  # 0: no limit
    sequence_timeout_msec: int  # 0: no limit
    max_num_sequence: int
    max_sequence_job_queue_size: int
    async_communication: bool
    use_venv: bool
    runtime: str  # of the workers: python, python3, LSP
    open_inference: Declaration = Declaration()  # noqa: RUF009  # frozen
    sequence_keys: SequenceKeys = SequenceKeys()  # noqa: RUF009  # frozen


def resolve(
    model: str,
    version: str,
    requested: Requested,
    yaml: Mapping[Any, object] | None,
    settings: Settings,
    *,
    manifest_runtime: str,
    gpus: int,
    cpus: int,
    at_startup: bool,
    yaml_name: str = "model configuration",
) -> tuple[ModelOptions, list[Notice]]:
    """The options and what the log should say about them; `gpus` is the number in use."""
    stated, complaints = read_yaml(yaml or {}, gpus)
    notices = _placed(complaints, f"{yaml_name} of model {model} {version}")
    entry, complaints = find_entry(settings.models, model, version)
    notices += _placed(complaints, f"models, {settings.source('models')}")
    workers, complaints = _workers(requested, stated, entry, settings, gpus or cpus, at_startup)
    notices += complaints + _sequence_warnings(model, version, stated)
    runtime = _first(entry.runtime, requested.runtime, default=manifest_runtime)
    options = ModelOptions(
        min_workers=workers[0],
        max_workers=workers[1],
        **_batching(requested, stated, entry),
        **_timeouts(requested, stated, entry, settings),
        job_queue_size=stated.job_queue_size or settings.job_queue_size,
        job_queue_bytes=settings.job_queue_bytes,
        max_requests_per_worker=_first(stated.max_requests_per_worker, default=settings.max_requests_per_worker),
        max_worker_memory=_first(stated.max_worker_memory_in_mb, default=settings.max_worker_memory_mb) << 20,
        use_job_ticket=stated.use_job_ticket,
        max_retry_timeout_in_sec=stated.max_retry_timeout_in_sec,
        client_timeout_in_mills=stated.client_timeout_in_mills,
        device_type=(stated.device_type or "gpu") if gpus else "cpu",
        device_ids=stated.device_ids,
        **_parallelism(stated),
        continuous_batching=stated.continuous_batching,
        **_sequences(stated),
        async_communication=stated.async_communication,
        use_venv=stated.use_venv and runtime == "python",
        runtime=runtime,
        open_inference=stated.open_inference,
        sequence_keys=SequenceKeys.of(settings),
    )
    return options, notices


def restored(options: ModelOptions, saved: SavedVersion) -> ModelOptions:
    """The options with those that a saved configuration holds in place of all other sources."""
    level = saved.parallel_level if options.parallel_level and saved.parallel_level > 0 else options.parallel_level
    torchrun = options.torchrun and replace(options.torchrun, nproc_per_node=level)
    return replace(
        options,
        min_workers=saved.min_workers,
        max_workers=saved.max_workers,
        batch_size=saved.batch_size,
        max_batch_delay=saved.max_batch_delay,
        response_timeout=saved.response_timeout,
        startup_timeout=saved.startup_timeout,
        runtime=saved.runtime,
        parallel_level=level,
        torchrun=torchrun,
    )


def _placed(complaints: list[Notice], place: str) -> list[Notice]:
    return [replace(notice, message=f"{notice.message} ({place})") for notice in complaints]


def _first(*values: T | None, default: T) -> T:
    return next((value for value in values if value is not None), default)


def _workers(
    requested: Requested, stated: Stated, entry: Entry, settings: Settings, processors: int, at_startup: bool
) -> tuple[tuple[int, int], list[Notice]]:
    """Smallest and largest number of workers. A YAML counts only with both, and in order."""
    if 0 < stated.min_workers <= stated.max_workers:
        return (stated.min_workers, stated.max_workers), []
    notices = []
    if stated.min_workers or stated.max_workers:
        counts = f"minWorkers:{stated.min_workers}, maxWorkers:{stated.max_workers}"
        notices.append(Notice("WARN", "ModelServer", f"Invalid model config in mar, {counts}"))
    if at_startup:
        default = 1 if settings.debug else settings.default_workers_per_model or processors
        return (_first(entry.min_workers, default=default), _first(entry.max_workers, default=default)), notices
    initial = max(0, _first(requested.initial_workers, default=settings.default_workers_per_model))
    return (initial, initial), notices


def _batching(requested: Requested, stated: Stated, entry: Entry) -> dict[str, Any]:
    size = None if requested.batch_size == -1 else requested.batch_size
    delay = None if requested.max_batch_delay == -100 else requested.max_batch_delay
    return {
        "batch_size": _first(size, stated.batch_size, entry.batch_size, default=1),
        "max_batch_delay": _first(delay, stated.max_batch_delay, entry.max_batch_delay, default=100),
    }


def _timeouts(requested: Requested, stated: Stated, entry: Entry, settings: Settings) -> dict[str, Any]:
    """Unlike batching, YAML and `models` beat the registration here."""
    if settings.debug:
        return {"response_timeout": _UNLIMITED, "startup_timeout": _UNLIMITED}
    return {
        "response_timeout": _first(
            stated.response_timeout,
            entry.response_timeout,
            requested.response_timeout,
            default=settings.default_response_timeout,
        ),
        "startup_timeout": _first(
            stated.startup_timeout,
            entry.startup_timeout,
            requested.startup_timeout,
            default=settings.default_startup_timeout,
        ),
    }


def _parallelism(stated: Stated) -> dict[str, Any]:
    """A level counts only with a type; ranks without a `torchrun` map get one with as many processes."""
    level = stated.parallel_level if stated.parallel_type else 0
    torchrun = None
    if level and stated.parallel_type != "custom":
        torchrun = stated.torchrun or Torchrun(nproc_per_node=level)
    return {"parallel_type": stated.parallel_type, "parallel_level": level, "torchrun": torchrun}


def _sequences(stated: Stated) -> dict[str, Any]:
    """The sequence values; all 0 for a model without sequences."""
    used = stated.sequence_batching or stated.sequence_max_idle_msec > 0
    return {
        "sequence_batching": stated.sequence_batching,
        "sequence_max_idle_msec": stated.sequence_max_idle_msec,
        "sequence_timeout_msec": stated.sequence_timeout_msec if used else 0,
        "max_num_sequence": stated.max_num_sequence if used else 0,
        "max_sequence_job_queue_size": stated.max_sequence_job_queue_size if used else 0,
    }


def _sequence_warnings(model: str, version: str, stated: Stated) -> list[Notice]:
    if not stated.sequence_batching or stated.sequence_max_idle_msec:
        return []
    message = (
        f"Model {model} version {version} has sequenceBatching without sequenceMaxIdleMSec: "
        "its sequences end only by sequenceTimeoutMSec or by the handler"
    )
    return [Notice("WARN", "archive.model.ModelConfig", message)]
