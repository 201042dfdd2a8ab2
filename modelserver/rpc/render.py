"""Errors as gRPC says them: a status code and a text of two lines, the second of which clients look for a class in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc

from modelserver.errors import (
    BadRequest,
    InvalidKey,
    MalformedMessage,
    ModelNotFound,
    ServerError,
    ServiceUnavailable,
    VersionNotFound,
    WorkerError,
)

_LONGEST: Final = 4096  # bytes of a text, as the wire has it; clients refuse more than twice as much of all metadata
_PACKAGES: Final = {
    "DownloadArchiveException": "archive.",
    "InvalidModelException": "archive.model.",
    "ModelException": "archive.model.",
    "ModelNotFoundException": "archive.model.",
    "ModelVersionNotFoundException": "archive.model.",
    "WorkerInitializationException": "wlm.",
}
# How the standard service of Open Inference says what a worker reports; for the other one they are what HTTP has.
_CODES_OF_WORKERS: Final = {
    "Prediction failed": grpc.StatusCode.INTERNAL,
    "Invalid model predict output": grpc.StatusCode.INTERNAL,
    "number of batch response mismatched": grpc.StatusCode.INTERNAL,
    "Unsupported model output data type.": grpc.StatusCode.INTERNAL,
    "Out of resources": grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_INTERNAL_TAG: Final = "org.pytorch.serve.http.InternalServerException"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The end of a call that failed; `tag` is the second line, "" for none."""

    code: grpc.StatusCode
    message: str
    tag: str

    @property
    def details(self) -> str:
        """The text as it is sent."""
        return shortened(f"{self.message}\n{self.tag}" if self.tag else self.message)


def refusal_of_model_call(error: ServerError) -> Refusal:
    """How methods refuse that look at or change models."""
    if isinstance(error, ServiceUnavailable):  # nobody there to describe the model
        return Refusal(grpc.StatusCode.INTERNAL, error.message, _INTERNAL_TAG)
    return Refusal(_code(error), error.message, "" if isinstance(error, InvalidKey) else _tag(error))


def refusal_of_prediction(error: ServerError) -> Refusal:
    """How predictions are refused: as clients know it, what they could have known better is an internal error too."""
    if isinstance(error, ServiceUnavailable):
        return Refusal(grpc.StatusCode.INTERNAL, error.message, "InternalServerException.()")
    if isinstance(error, BadRequest) and not isinstance(error, MalformedMessage):
        return Refusal(grpc.StatusCode.INTERNAL, error.message, "BadRequestException.()")
    if isinstance(error, ModelNotFound | VersionNotFound):
        return Refusal(grpc.StatusCode.INTERNAL, error.message, _tag(error))
    return refusal_of_model_call(error)


def refusal_of_readiness(error: ServerError) -> Refusal:
    """How TorchServe's service of Open Inference refuses to tell about models."""
    return refusal_of_prediction(error) if isinstance(error, BadRequest) else refusal_of_model_call(error)


def plain_refusal(error: ServerError) -> Refusal:
    """How the standard service of Open Inference refuses: the code that fits, and no second line."""
    code = _CODES_OF_WORKERS.get(error.message) if isinstance(error, WorkerError) else None
    return Refusal(code or _code(error), error.message, "")


def shortened(text: str) -> str:
    """Text that fits into the status of a call: what is not ASCII takes three characters a byte there."""
    data = text.encode("utf-8", "replace")
    if len(data) + 2 * sum(byte < 0x20 or byte > 0x7E for byte in data) <= _LONGEST:
        return data.decode("utf-8")
    kept = data[: _LONGEST // 3].decode("utf-8", "ignore")
    _, newline, tag = text.rpartition("\n")
    return f"{kept}...{newline}{tag}" if len(tag) < _LONGEST // 8 else f"{kept}..."


def _code(error: ServerError) -> grpc.StatusCode:
    code: grpc.StatusCode = grpc.StatusCode[error.grpc]
    return grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code


def _tag(error: ServerError) -> str:
    return f"org.pytorch.serve.{_PACKAGES.get(error.type, 'http.')}{error.type}"
