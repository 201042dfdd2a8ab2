"""What translators hand to the engine and get back from it, in the engine's own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from modelserver.errors import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A request to register one model version; None means not given."""

    url: str
    model_name: str | None = None
    handler: str | None = None
    runtime: str | None = None
    batch_size: int | None = None
    max_batch_delay: int | None = None  # ms
    initial_workers: int | None = None
    response_timeout: int | None = None  # s
    startup_timeout: int | None = None  # s
    synchronous: bool = True
    s3_sse_kms: bool = False
    at_startup: bool = False  # named by --models or load_models
    default_name: str | None = None  # used when neither `model_name` nor the manifest names the model (start-up only)


@dataclass(frozen=True, slots=True)
class Registered:
    """Outcome of a registration. `pending` is True when workers are still loading (asynchronous registration)."""

    model: str
    version: str
    workers: int
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Scaled:
    """Outcome of a scale call. `pending`: asynchronous; `complete`: as many workers run as were asked for."""

    workers: int
    pending: bool = False
    complete: bool = True


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker, as describe shows it."""

    id: str
    started: datetime  # UTC; when the slot was made
    ready: bool
    memory: int  # bytes, 0 if unknown
    pid: int  # -1 before the first process
    gpu: int | None
    certificate: Certificate | None  # of its last death, while it is not ready
    next_retry: float | None = None  # seconds from now


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """One model version, as describe shows it; field names follow the contract's members."""

    model_name: str
    model_version: str
    model_url: str
    runtime: str
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay: int
    response_timeout: int
    startup_timeout: int
    max_retry_timeout_in_sec: int
    client_timeout_in_mills: int
    parallel_type: str
    parallel_level: int
    device_type: str
    device_ids: tuple[int, ...] | None
    continuous_batching: bool
    use_job_ticket: bool
    use_venv: bool
    stateful: bool
    sequence_max_idle_msec: int
    sequence_timeout_msec: int
    max_num_sequence: int
    max_sequence_job_queue_size: int
    loaded_at_startup: bool
    workers: tuple[WorkerStatus, ...] = field(default=())
    queue_remaining: int = 0
    queue_pending: int = 0
