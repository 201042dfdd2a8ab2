"""Register, list, describe, scale and unregister models."""

from __future__ import annotations

from modelserver.dialect.description import customized_metadata, describe_version
from modelserver.dialect.outcomes import (
    LONGEST_PAGE,
    default_text,
    page_of,
    registered_text,
    scaled_text,
    unregistered_text,
)
from modelserver.dialect.ports import Engine
from modelserver.dialect.registration import parse_registration
from modelserver.engine.requests import Registered, Scaled
from modelserver.errors import MethodNotAllowed
from modelserver.rest.body import media_type
from modelserver.rest.call import Call
from modelserver.rest.describe import ask_handler
from modelserver.rest.hints import misspelt_parameters
from modelserver.rest.openapi import describe_management
from modelserver.rest.parameters import JsonParameters, Parameters, Query
from modelserver.rest.render import JSON_TYPE, json_text
from modelserver.rest.replies import handler_headers, status_of
from modelserver.settings.version import version as server_version


class Models:
    """The endpoints under `/models`, one method per row of the contract; path segments select, methods dispatch."""

    def __init__(self, engine: Engine, *, model_api: bool) -> None:
        self._engine = engine
        self._model_api = model_api  # off: models can neither be registered nor unregistered

    async def collection(self, call: Call) -> None:
        """`/models`."""
        if call.method == "GET":
            self._list(call)
        elif call.method == "POST" and self._model_api:
            await self._register(call)
        else:
            raise MethodNotAllowed

    async def model(self, call: Call) -> None:
        """`/models/{model}[/{version}]`."""
        model = call.segments[1]
        version = call.segments[2] if len(call.segments) > 2 else None
        if call.method == "GET":
            await self._describe(call, model, version)
        elif call.method == "PUT":
            await self._scale(call, model, version)
        elif call.method == "DELETE" and self._model_api:
            await self._engine.unregister(model, version)
            call.respond_json(200, {"status": unregistered_text(model)})
        elif call.method == "OPTIONS":
            self._describe_api(call, model, version)
        else:
            raise MethodNotAllowed

    async def default_version(self, call: Call) -> None:
        """`/models/{model}/{version}/set-default`."""
        _, model, version, _ = call.segments
        if call.method == "OPTIONS":
            self._describe_api(call, model, version)
            return
        if call.method != "PUT":
            raise MethodNotAllowed
        await self._engine.set_default(model, version)
        call.respond_json(200, {"status": default_text(model, version)})

    def _describe_api(self, call: Call, model: str, version: str | None) -> None:
        self._engine.require(model, version)
        call.respond(200, describe_management(model, server_version()), [JSON_TYPE])

    def _list(self, call: Call) -> None:
        query = Query(call.query)
        _point_out(call, "/models", query)
        limit = query.integer("limit")
        if limit is None or not 0 <= limit <= LONGEST_PAGE:
            limit = LONGEST_PAGE
        offset = max(query.integer("next_page_token") or 0, 0)
        call.respond_json(200, page_of(self._engine.list_models(), offset, limit))

    async def _register(self, call: Call) -> None:
        parameters = _parameters(call)
        _point_out(call, "/models", parameters)
        registration = parse_registration(parameters)
        outcome = await self._engine.register(registration)
        call.respond_json(_registered(outcome), {"status": registered_text(outcome)})

    async def _describe(self, call: Call, model: str, version: str | None) -> None:
        elements = [describe_version(entry) for entry in await self._engine.observe(model, version)]
        query = Query(call.query)
        _point_out(call, "/models/{model_name}", query)
        if version == "all" or not query.boolean("customized", default=False):
            call.respond_json(200, elements)
            return
        reply = await ask_handler(call, self._engine, model, version)
        elements[0]["customizedMetadata"] = customized_metadata(reply.body)
        headers = handler_headers(reply.headers)
        if not any(name.lower() == b"content-type" for name, _ in headers):
            headers.append(JSON_TYPE)
        call.respond(status_of(reply), json_text(elements), headers, ok=True)

    async def _scale(self, call: Call, model: str, version: str | None) -> None:
        query = Query(call.query)
        _point_out(call, "/models/{model_name}", query)
        if version is None:
            version = query.text("model_version")
        minimum = _given(query.integer("min_worker"), 1)
        maximum = _given(query.integer("max_worker"), minimum)
        synchronous = query.boolean("synchronous", default=False)
        scaled = await self._engine.scale(model, version, minimum, maximum, synchronous=synchronous)
        call.respond_json(_scaled(scaled), {"status": scaled_text(scaled, model, version, minimum)})


def _parameters(call: Call) -> Parameters:
    """From the JSON body if there is one, else from the query."""
    body = call.exchange.body()
    if body and media_type(call.header(b"content-type")).lower() == "application/json":
        return JsonParameters(body)
    return Query(call.query)


def _point_out(call: Call, path: str, parameters: Parameters) -> None:
    """Log what is misspelt among the parameters; it has no effect, as in TorchServe."""
    for text in misspelt_parameters(call.method, path, parameters.names):
        call.telemetry.log("WARN", "http.HttpRequestHandler", text)


def _registered(outcome: Registered) -> int:
    return 202 if outcome.pending else 200


def _scaled(outcome: Scaled) -> int:
    if outcome.pending:
        return 202
    return 200 if outcome.complete else 206


def _given(value: int | None, default: int) -> int:
    return default if value is None else value
