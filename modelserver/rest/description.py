"""Where clients ask what can be asked: the API descriptions of ports and models."""

from __future__ import annotations

from modelserver.dialect.ports import Engine
from modelserver.errors import MethodNotAllowed
from modelserver.rest.call import Call
from modelserver.rest.openapi import describe_predictions
from modelserver.rest.render import JSON_TYPE, json_text
from modelserver.rest.router import Endpoint
from modelserver.settings.table import Settings

_LIVE_ENVELOPES = ("kserve", "kfserving", "kservev2", "kfservingv2")
_ALIVE = json_text({"status": "alive"})


def description(document: bytes) -> Endpoint:
    """`/api-description`: any method."""

    def answer(call: Call) -> None:
        call.respond(200, document, [JSON_TYPE])

    return answer


def root(document: bytes, settings: Settings) -> Endpoint:
    """`/`: OPTIONS describes the port; GET is the sign of life for KServe, where that is served."""
    live = settings.service_envelope in _LIVE_ENVELOPES or settings.ts_open_inference_protocol

    def answer(call: Call) -> None:
        if call.method == "OPTIONS":
            call.respond(200, document, [JSON_TYPE])
        elif call.method == "GET" and live:
            call.respond(200, _ALIVE, [JSON_TYPE])
        else:
            raise MethodNotAllowed

    return answer


def describe_model(call: Call, engine: Engine, model: str, version: str | None) -> None:
    """OPTIONS on any way to a prediction. Raises ModelNotFound, VersionNotFound."""
    engine.require(model, version)
    call.respond(200, describe_predictions(model), [JSON_TYPE])
