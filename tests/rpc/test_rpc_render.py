"""Errors as gRPC says them."""

from __future__ import annotations

import grpc
import pytest

from modelserver.errors import (
    BadRequest,
    Conflict,
    DownloadFailed,
    InvalidKey,
    InvalidModel,
    MalformedMessage,
    ModelApiDisabled,
    ModelNotFound,
    RequestTimeout,
    ServerError,
    ServiceUnavailable,
    VersionNotFound,
    WorkerError,
    WorkerInitialization,
)
from modelserver.rpc.render import refusal_of_model_call, refusal_of_prediction, shortened

Code = grpc.StatusCode
JAVA = "org.pytorch.serve."


@pytest.mark.parametrize(
    ("error", "code", "tag"),
    [
        (BadRequest("x"), Code.INVALID_ARGUMENT, "http.BadRequestException"),
        (ModelNotFound("x"), Code.NOT_FOUND, "archive.model.ModelNotFoundException"),
        (VersionNotFound("x"), Code.NOT_FOUND, "archive.model.ModelVersionNotFoundException"),
        (InvalidModel("x"), Code.INVALID_ARGUMENT, "archive.model.InvalidModelException"),
        (DownloadFailed("x"), Code.INVALID_ARGUMENT, "archive.DownloadArchiveException"),
        (Conflict("x"), Code.ABORTED, "http.ConflictStatusException"),
        (RequestTimeout("x"), Code.DEADLINE_EXCEEDED, "http.RequestTimeoutException"),
        (WorkerInitialization("x"), Code.INTERNAL, "wlm.WorkerInitializationException"),
        (ServiceUnavailable("x"), Code.INTERNAL, "http.InternalServerException"),
    ],
)
def test_calls_about_models(error: ServerError, code: grpc.StatusCode, tag: str) -> None:
    refusal = refusal_of_model_call(error)
    assert (refusal.code, refusal.details) == (code, f"x\n{JAVA}{tag}")


def test_a_model_api_that_is_off() -> None:
    refusal = refusal_of_model_call(ModelApiDisabled())
    assert refusal.code is Code.PERMISSION_DENIED
    assert refusal.details == f"Model API disabled\n{JAVA}archive.model.ModelException"


@pytest.mark.parametrize(
    ("error", "code", "tag"),
    [
        (BadRequest("x"), Code.INTERNAL, "BadRequestException.()"),
        (ModelNotFound("x"), Code.INTERNAL, f"{JAVA}archive.model.ModelNotFoundException"),
        (ServiceUnavailable("x"), Code.INTERNAL, "InternalServerException.()"),
        (MalformedMessage("x"), Code.INVALID_ARGUMENT, f"{JAVA}http.BadRequestException"),
        (RequestTimeout("x"), Code.DEADLINE_EXCEEDED, f"{JAVA}http.RequestTimeoutException"),
        (WorkerError(413, "x"), Code.RESOURCE_EXHAUSTED, f"{JAVA}http.InternalServerException"),
        (WorkerError(204, "x"), Code.UNKNOWN, f"{JAVA}http.InternalServerException"),
        (WorkerError(42, "x"), Code.UNKNOWN, f"{JAVA}http.InternalServerException"),
    ],
)
def test_predictions(error: ServerError, code: grpc.StatusCode, tag: str) -> None:
    refusal = refusal_of_prediction(error)
    assert (refusal.code, refusal.message, refusal.tag) == (code, "x", tag)


def test_a_refused_key_has_one_line() -> None:
    for refuse in (refusal_of_model_call, refusal_of_prediction):
        refusal = refuse(InvalidKey("no"))
        assert (refusal.code, refusal.details) == (Code.PERMISSION_DENIED, "no")


@pytest.mark.parametrize("text", ["x" * 100_000, "é" * 100_000, "\n" * 100_000, "\ud800" * 100_000])
def test_long_texts_are_shortened_to_what_a_status_can_hold(text: str) -> None:
    short = shortened(f"{text}\ntag")
    encoded = short.encode()
    assert len(encoded) + 2 * sum(byte < 0x20 or byte > 0x7E for byte in encoded) < 6000
    assert short.endswith("...\ntag")


def test_other_texts_stay() -> None:
    assert shortened("Größe\ntag") == "Größe\ntag"
    assert shortened("a\ud800b") == "a?b"
