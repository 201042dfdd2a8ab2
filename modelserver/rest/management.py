"""Register, list, describe, scale and unregister models."""

from __future__ import annotations

import re

from modelserver.engine.requests import Registered, Registration, Scaled
from modelserver.errors import BadRequest, MethodNotAllowed
from modelserver.rest.body import media_type
from modelserver.rest.call import Call
from modelserver.rest.describe import ask_handler, customized_metadata, describe_version
from modelserver.rest.openapi import describe_management
from modelserver.rest.parameters import JsonParameters, Parameters, Query
from modelserver.rest.ports import Engine
from modelserver.rest.render import JSON_TYPE, json_text
from modelserver.rest.replies import handler_headers, status_of
from modelserver.settings.version import version as server_version

_PAGE = 100
_RUNTIMES = ("python", "python3", "LSP")
_UNREACHABLE = re.compile(r"[/\x00-\x1f\x7f]")
_PROCESSING = "Processing worker updates..."


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
            call.respond_json(200, {"status": f'Model "{model}" unregistered'})
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
        text = f'Default version successfully updated for model "{model}" to "{version}"'
        call.respond_json(200, {"status": text})

    def _describe_api(self, call: Call, model: str, version: str | None) -> None:
        self._engine.require(model, version)
        call.respond(200, describe_management(model, server_version()), [JSON_TYPE])

    def _list(self, call: Call) -> None:
        query = Query(call.query)
        limit = query.integer("limit")
        if limit is None or not 0 <= limit <= _PAGE:
            limit = _PAGE
        offset = max(query.integer("next_page_token") or 0, 0)
        models = self._engine.list_models()
        page = [{"modelName": name, "modelUrl": url} for name, url in models[offset : offset + limit]]
        token = str(offset + limit) if offset + limit <= len(models) else None
        call.respond_json(200, {"nextPageToken": token, "models": page})

    async def _register(self, call: Call) -> None:
        registration = parse_registration(_parameters(call))
        status, text = _registered(await self._engine.register(registration))
        call.respond_json(status, {"status": text})

    async def _describe(self, call: Call, model: str, version: str | None) -> None:
        elements = [describe_version(entry) for entry in await self._engine.observe(model, version)]
        query = Query(call.query)
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
        if version is None:
            version = query.text("model_version")
        minimum = _given(query.integer("min_worker"), 1)
        maximum = _given(query.integer("max_worker"), minimum)
        synchronous = query.boolean("synchronous", default=False)
        scaled = await self._engine.scale(model, version, minimum, maximum, synchronous=synchronous)
        status, text = _scaled(scaled, model, version, minimum)
        call.respond_json(status, {"status": text})


def parse_registration(parameters: Parameters) -> Registration:
    """A registration from its parameters. Raises BadRequest."""
    url = parameters.text("url")
    if url is None:
        raise BadRequest("Parameter url is required.")
    name = parameters.text("model_name") or None
    if name is not None and _UNREACHABLE.search(name):
        raise BadRequest(f"Model name contains a slash or a control character: {name!r}")
    runtime = parameters.text("runtime")
    if runtime is not None and runtime not in _RUNTIMES:
        raise BadRequest(f"Invalid RuntimeType value: {runtime}")
    return Registration(
        url=url,
        model_name=name,
        handler=parameters.text("handler") or None,
        runtime=runtime,
        batch_size=_unless(parameters.integer("batch_size"), -1),
        max_batch_delay=_unless(parameters.integer("max_batch_delay"), -100),
        initial_workers=parameters.integer("initial_workers"),
        response_timeout=_unless(parameters.integer("response_timeout"), -1),
        startup_timeout=_unless(parameters.integer("startup_timeout"), -1),
        synchronous=parameters.boolean("synchronous", default=True),
        s3_sse_kms=parameters.boolean("s3_sse_kms", default=False),
    )


def _parameters(call: Call) -> Parameters:
    """From the JSON body if there is one, else from the query."""
    body = call.exchange.body()
    if body and media_type(call.header(b"content-type")).lower() == "application/json":
        return JsonParameters(body)
    return Query(call.query)


def _registered(outcome: Registered) -> tuple[int, str]:
    if outcome.pending:
        return 202, _PROCESSING
    text = f'Model "{outcome.model}" Version: {outcome.version} registered with {outcome.workers} initial workers'
    if not outcome.workers:
        text += ". Use scale workers API to add workers for the model."
    return 200, text


def _scaled(outcome: Scaled, model: str, version: str | None, minimum: int) -> tuple[int, str]:
    if outcome.pending:
        return 202, _PROCESSING
    if not outcome.complete:
        return 206, "Workers scaling in progress..."
    text = f"Workers scaled to {minimum} for model: {model}"
    return 200, text if version is None else f"{text}, version: {version}"


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _unless(value: int | None, unset: int) -> int | None:
    """TorchServe's numbers for "not given" mean just that."""
    return None if value == unset else value
