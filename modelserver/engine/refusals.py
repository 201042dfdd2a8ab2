"""The texts of jobs that are not served, spelt as clients know them, each with its cause."""

from __future__ import annotations

from typing import Final

from modelserver.engine.job import Job
from modelserver.errors import (
    BadRequest,
    Cause,
    Certificate,
    InflatedBodyTooLarge,
    RequestTimeout,
    ServerError,
    ServiceUnavailable,
    WorkerError,
)
from modelserver.wire.frames import DESCRIBE, Reply

_NOT_DESCRIBED: Final = "Failed to get customized model matadata."
_KINDS: Final[dict[int, type[ServerError]]] = {kind.status: kind for kind in (BadRequest, InflatedBodyTooLarge)}


def unavailable(job: Job, certificate: Certificate | None) -> ServiceUnavailable:
    """A job that finds no worker or no room (the text's stray quote included)."""
    subject = f'Model "{job.model}"' + ("" if job.label == "default" else f' Version {job.label}"')
    if job.kind == DESCRIBE:
        message = (
            f'Model "{job.model}" has no worker to serve describe request. Please use scale workers API to add workers.'
        )
    else:
        message = (
            f"{subject} has no worker to serve inference request. Please use scale workers API to add workers. "
            "If this is a sequence inference, please check if it is closed, or expired; "
            "or exceeds maxSequenceJobQueueSize"
        )
    return ServiceUnavailable(message, certificate=certificate)


def died(job: Job, certificate: Certificate) -> WorkerError:
    """A job that its worker took down with it."""
    message = _NOT_DESCRIBED if _is_overdue_describe(job, certificate) else "Worker died."
    return WorkerError(certificate.cause.http_status, message, certificate=certificate)


def overdue(job: Job, certificate: Certificate) -> WorkerError:
    """A job whose worker takes too long over it, but serves others."""
    late = "Backend worker did not respond in given time"
    message = _NOT_DESCRIBED if _is_overdue_describe(job, certificate) else late
    return WorkerError(certificate.cause.http_status, message, certificate=certificate)


def _is_overdue_describe(job: Job, certificate: Certificate) -> bool:
    return job.kind == DESCRIBE and certificate.cause is Cause.RESPONSE_TIMEOUT


def failed_alone(reply: Reply) -> ServerError:
    """A job that failed though others of its batch may be served, as its reply tells."""
    message = reply.body.decode("utf-8", "replace")
    kind = _KINDS.get(reply.status)
    return WorkerError(reply.status, message) if kind is None else kind(message)


def timed_out(job: Job, timeout: float) -> RequestTimeout:
    """A job that was not over when its client had waited `timeout` seconds."""
    where = f"with worker {job.worker}" if job.sent else "waiting in the queue"
    detail = f"deadline passed while the request was {where}"
    message = f"Inference request timed out after {timeout * 1000:.0f} ms."
    return RequestTimeout(message, certificate=Certificate(Cause.DEADLINE, detail))
