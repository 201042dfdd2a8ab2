"""Every error a client can see, once: HTTP status, gRPC code, the outer `type` text and the message.

Raised anywhere below, rendered in two places only: `rest/render.py` and `rpc/render.py`. Source of statuses and texts:
TorchServe 0.12 as observed; README's compatibility notes name the deviations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar


class Cause(StrEnum):
    """Why a worker failed to load or died, or why a request was not served. The value is what operators read."""

    BAD_ARCHIVE = "bad archive"
    HANDLER_MISSING = "handler not found"
    HANDLER_IMPORT = "handler cannot be imported"
    HANDLER_CONTRACT = "handler contract broken"
    STORAGE = "storage failed"
    DOWNLOAD = "download failed"
    DEPENDENCY = "dependency installation failed"
    INITIALIZE = "exception in initialize"
    OUT_OF_MEMORY = "out of memory"
    CUDA_OUT_OF_MEMORY = "CUDA out of memory"
    SIGNAL = "killed by a signal"
    EXIT = "process exited"
    LOAD_TIMEOUT = "load timeout"
    RESPONSE_TIMEOUT = "response timeout"
    PROTOCOL = "protocol violation"
    SPAWN = "process could not be started"
    STOPPED = "stopped on request"
    RECYCLED = "recycled"
    NO_WORKER = "no worker"
    QUEUE_FULL = "queue full"
    NO_TICKET = "no idle worker"
    SEQUENCES_FULL = "too many sequences"
    SEQUENCE_CLOSED = "sequence closed"
    DEADLINE = "deadline passed"
    REPLY_TOO_LARGE = "reply too large"

    @property
    def permanent(self) -> bool:
        """True for causes that another attempt cannot mend: such a worker is not retried."""
        return self in _PERMANENT

    @property
    def http_status(self) -> int:
        """Status of the requests that a worker with this cause takes down: 507 for memory, else 500."""
        return 507 if self in (Cause.OUT_OF_MEMORY, Cause.CUDA_OUT_OF_MEMORY) else 500


_PERMANENT = frozenset(
    {Cause.BAD_ARCHIVE, Cause.HANDLER_MISSING, Cause.HANDLER_IMPORT, Cause.HANDLER_CONTRACT, Cause.DEPENDENCY}
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The death certificate of one worker process: what ended it and the traces it left. Also, with nothing but cause
    and detail, why a request was not served.
    """

    cause: Cause
    detail: str  # one line an operator can act on
    traceback: str = ""
    last_output: tuple[str, ...] = ()
    exit_code: int | None = None
    signal: str | None = None
    max_rss: int | None = None  # bytes
    next_retry: float | None = None  # seconds from the death to the next attempt; None: there is none

    def as_json(self) -> dict[str, Any]:
        """The `cause` member of error bodies and of describe; empty fields are left out."""
        members = {
            "reason": str(self.cause),
            "detail": self.detail,
            "exitCode": self.exit_code,
            "signal": self.signal,
            "maxRss": self.max_rss,
            "nextRetryInSec": self.next_retry,
            "traceback": self.traceback.splitlines(),
            "lastOutput": list(self.last_output),
        }
        return {name: value for name, value in members.items() if value not in (None, [])}


@dataclass(eq=False)
class ServerError(Exception):
    """Base of all errors that reach a client; `type` is TorchServe's exception name, which clients match."""

    message: str
    certificate: Certificate | None = field(default=None, kw_only=True)

    status: ClassVar[int] = 500
    grpc: ClassVar[str] = "INTERNAL"
    type: ClassVar[str] = "InternalServerException"

    def __str__(self) -> str:
        return self.message


class BadRequest(ServerError):
    """Input that no retry can make valid."""

    status = 400
    grpc = "INVALID_ARGUMENT"
    type = "BadRequestException"


class MalformedMessage(BadRequest):
    """A gRPC message that is none, or one that is missing."""


class InvalidModel(ServerError):
    """An archive whose manifest or configuration cannot be used."""

    status = 400
    grpc = "INVALID_ARGUMENT"
    type = "InvalidModelException"


class InvalidKey(ServerError):
    """Missing, wrong or expired token; 400 rather than 401, as clients expect."""

    status = 400
    grpc = "PERMISSION_DENIED"
    type = "InvalidKeyException"


class ModelError(ServerError):
    """A model that is well formed but cannot be served here (dependencies, runtime)."""

    status = 400
    grpc = "INVALID_ARGUMENT"
    type = "ModelException"


class ModelApiDisabled(ServerError):
    """Models can neither be registered nor unregistered here; over gRPC, where no method is missing for it."""

    status = 405
    grpc = "PERMISSION_DENIED"
    type = "ModelException"

    def __init__(self) -> None:
        super().__init__("Model API disabled")


class DownloadFailed(ServerError):
    """An archive URL that could not be fetched."""

    status = 400
    grpc = "INVALID_ARGUMENT"
    type = "DownloadArchiveException"


class DefaultVersionInUse(ServerError):
    """The default version cannot go while others exist."""

    status = 403
    grpc = "PERMISSION_DENIED"
    type = "InvalidModelVersionException"

    def __init__(self, model: str) -> None:
        super().__init__(f"Cannot remove default version for model {model}")


class ResourceNotFound(ServerError):
    """No route has this path."""

    status = 404
    grpc = "NOT_FOUND"
    type = "ResourceNotFoundException"

    def __init__(self) -> None:
        super().__init__("Requested resource is not found, please refer to API document.")


class ModelNotFound(ServerError):
    """No model of this name, or no archive under this URL."""

    status = 404
    grpc = "NOT_FOUND"
    type = "ModelNotFoundException"


class VersionNotFound(ServerError):
    """The model exists, the version does not."""

    status = 404
    grpc = "NOT_FOUND"
    type = "ModelVersionNotFoundException"


class MethodNotAllowed(ServerError):
    """The path exists, the method does not (or is switched off)."""

    status = 405
    grpc = "PERMISSION_DENIED"
    type = "MethodNotAllowedException"

    def __init__(self) -> None:
        super().__init__("Requested method is not allowed, please refer to API document.")


class RequestTimeout(ServerError):
    """A client deadline or a clean-up limit that passed."""

    status = 408
    grpc = "DEADLINE_EXCEEDED"
    type = "RequestTimeoutException"


class Conflict(ServerError):
    """The version is registered already."""

    status = 409
    grpc = "ABORTED"
    type = "ConflictStatusException"


class NotSupported(ServerError):
    """A part of a protocol that is not offered here."""

    status = 501
    grpc = "UNIMPLEMENTED"
    type = "NotImplementedException"


class BodyTooLarge(ServerError):
    """A request body over `max_request_size`."""

    status = 413
    grpc = "RESOURCE_EXHAUSTED"
    type = "BadRequestException"

    def __init__(self, limit: int) -> None:
        super().__init__(f"Request body exceeds max_request_size of {limit} bytes.")


class InflatedBodyTooLarge(ServerError):
    """A compressed request body that is over `max_request_size` once it is inflated."""

    status = 413
    grpc = "RESOURCE_EXHAUSTED"
    type = "BadRequestException"


class InternalError(ServerError):
    """Anything of ours that failed."""


class MessageTooLarge(ServerError):
    """A gRPC message over `max_request_size`; unless it was packed, grpcio has told the client already."""

    status = 413
    grpc = "RESOURCE_EXHAUSTED"
    type = "BadRequestException"

    def __init__(self) -> None:
        super().__init__("The message exceeds max_request_size.")


class WorkerInitialization(ServerError):
    """A worker that cannot be placed (no device for it)."""

    type = "WorkerInitializationException"


class ServiceUnavailable(ServerError):
    """No worker, or no room in the queue: try again later."""

    status = 503
    grpc = "UNAVAILABLE"
    type = "ServiceUnavailableException"


# HTTP status -> gRPC code of errors that a worker reports with a status of its own.
_GRPC_OF_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    416: "OUT_OF_RANGE",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class WorkerError(ServerError):
    """A failure reported by a worker, or its death: the status is the worker's own, so it is per instance."""

    def __init__(self, status: int, message: str, *, certificate: Certificate | None = None) -> None:
        super().__init__(message, certificate=certificate)
        self.status = _http_status(status)  # type: ignore[misc]
        self.grpc = grpc_code(status)  # type: ignore[misc]


def _http_status(status: int) -> int:
    """What a worker says, as HTTP can say it."""
    if status == 413:
        return 507
    return status if 100 <= status <= 599 else 500


def grpc_code(status: int) -> str:
    """Name of the gRPC status for an HTTP status that a worker reported."""
    if code := _GRPC_OF_STATUS.get(status):
        return code
    return {2: "OK", 4: "FAILED_PRECONDITION", 5: "INTERNAL"}.get(status // 100, "UNKNOWN")


class ConfigurationError(Exception):
    """A setting the server cannot start with; printed as `Invalid configuration: <text>`, exit status 1."""


class InvalidSnapshot(Exception):
    """A saved configuration whose models are not all there; printed as `InvalidSnapshotException: <text>`, status 1."""
