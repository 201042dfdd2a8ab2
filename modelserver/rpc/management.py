"""`ManagementAPIsService`: look at models and change them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from modelserver.dialect.description import customized_metadata, describe_version
from modelserver.dialect.json_text import json_text
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
from modelserver.dialect.request_ids import RequestIds
from modelserver.engine.job import Job, tell
from modelserver.errors import BadRequest, ModelApiDisabled
from modelserver.rpc.call import Call
from modelserver.rpc.encoding import parse
from modelserver.rpc.messages import (
    DescribeModelRequest,
    ListModelsRequest,
    ManagementResponse,
    RegisterModelRequest,
    ScaleWorkerRequest,
    SetDefaultRequest,
    UnregisterModelRequest,
)
from modelserver.rpc.undertakings import Undertakings
from modelserver.wire.frames import DESCRIBE, Request


class Management:
    """The methods."""

    def __init__(self, engine: Engine, *, model_api: bool) -> None:
        self._engine = engine
        self._model_api = model_api  # off: models can neither be registered nor unregistered
        self._ids = RequestIds()
        self._undertakings = Undertakings()

    async def describe(self, call: Call) -> bytes:
        """One version or all; `customized`: the handler is asked too."""
        request = parse(DescribeModelRequest, await call.read_one())
        version = request.model_version or None
        elements = [describe_version(entry) for entry in await self._engine.observe(request.model_name, version)]
        if request.customized and version != "all":
            elements[0]["customizedMetadata"] = await self._ask_handler(call, request.model_name, version)
        return _response(json_text(elements))

    async def list_models(self, call: Call) -> bytes:
        """One page of the default versions."""
        request = parse(ListModelsRequest, await call.read_one())
        limit = request.limit if 0 < request.limit <= LONGEST_PAGE else LONGEST_PAGE
        return _response(json_text(page_of(self._engine.list_models(), max(request.next_page_token, 0), limit)))

    async def register(self, call: Call) -> bytes:
        """Register a version. Raises ModelApiDisabled, BadRequest, what the engine raises."""
        request = parse(RegisterModelRequest, await call.read_one())
        self._require_model_api()
        registration = parse_registration(Fields(request))
        return _response(registered_text(await self._undertakings.finish(self._engine.register(registration))))

    async def scale(self, call: Call) -> bytes:
        """Change the number of workers; 0 is the same as absent, so there is always one."""
        request = parse(ScaleWorkerRequest, await call.read_one())
        if not request.model_name:
            raise BadRequest("Parameter model_name is required.")
        model, version = request.model_name, request.model_version or None
        minimum = request.min_worker if request.min_worker > 0 else 1
        maximum = request.max_worker if request.max_worker > 0 else minimum
        scaling = self._engine.scale(model, version, minimum, maximum, synchronous=request.synchronous)
        return _response(scaled_text(await self._undertakings.finish(scaling), model, version, minimum))

    async def set_default(self, call: Call) -> bytes:
        """Make a version the default one."""
        request = parse(SetDefaultRequest, await call.read_one())
        await self._undertakings.finish(self._engine.set_default(request.model_name, request.model_version))
        return _response(default_text(request.model_name, request.model_version))

    async def unregister(self, call: Call) -> bytes:
        """Remove a version. Raises ModelApiDisabled, BadRequest, what the engine raises."""
        request = parse(UnregisterModelRequest, await call.read_one())
        self._require_model_api()
        if not request.model_name:
            raise BadRequest("Parameter url is required.")  # the wrong word, but the one that clients know
        await self._undertakings.finish(self._engine.unregister(request.model_name, request.model_version or None))
        return _response(unregistered_text(request.model_name))

    def _require_model_api(self) -> None:
        if not self._model_api:
            raise ModelApiDisabled

    async def _ask_handler(self, call: Call, model: str, version: str | None) -> dict[str, Any] | None:
        """The handler's part of the description. Raises the job's ServerError."""
        answered: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        request = Request(self._ids.next(), [], [], {"describe": "True"})
        job = Job(request, model, version or "default", call.received, partial(tell, answered), DESCRIBE)
        job.timeout = call.patience
        self._engine.submit(job, version)
        try:
            await answered
        except asyncio.CancelledError:
            self._engine.cancel(job)
            raise
        if job.reply is None:
            raise job.take_error()
        return customized_metadata(job.reply.body)


class Fields:
    """The fields of a message as parameters: what is empty or 0 is not given."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def text(self, name: str) -> str | None:
        """The value of a string field."""
        return getattr(self._message, name) or None

    def integer(self, name: str) -> int | None:
        """The value of an integer field."""
        return getattr(self._message, name) or None

    def boolean(self, name: str, *, default: bool) -> bool:
        """The value of a boolean field, which always has one."""
        value: bool = getattr(self._message, name)
        return value


def _response(text: str) -> bytes:
    data: bytes = ManagementResponse(msg=text.encode("utf-8", "replace").decode()).SerializeToString()
    return data
