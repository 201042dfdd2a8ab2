"""What translators hand to the engine and get back from it, in the engine's own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from modelserver.errors import Certificate
from modelserver.settings.model_options import ModelOptions
from modelserver.settings.snapshot import SavedVersion


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
    saved: SavedVersion | None = None  # restored from a saved configuration, whose options beat all others
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
    """Outcome of a scale call. `pending`: asynchronous; `complete`: as many workers run as were asked for; `overtaken`:
    the smaller number that another call has asked for since, if any.
    """

    workers: int
    pending: bool = False
    complete: bool = True
    overtaken: int | None = None


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
    gave_up: bool = False  # no further attempt
    device: int | None = None  # the (first) GPU in use, by its place among those of the server
    gpu_usage: str = ""  # as the vendor's tool tells it; "" if nobody has asked


@dataclass(frozen=True, slots=True)
class Ailment:
    """One reason why the server is not healthy: a worker that does not come back, or (no model) the server's stop."""

    certificate: Certificate
    model: str | None = None
    version: str | None = None
    worker: str | None = None  # its id


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """One model version, as describe shows it."""

    model_name: str
    model_version: str
    model_url: str
    runtime: str
    min_workers: int  # as scaled since
    max_workers: int
    options: ModelOptions  # as resolved at its registration
    loaded_at_startup: bool
    workers: tuple[WorkerStatus, ...] = field(default=())
    queue_remaining: int = 0
    queue_pending: int = 0
