"""`VLLMHandler`: large language models on vLLM, with OpenAI's HTTP API below a model's prediction URL."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import PredictionException

logger = logging.getLogger(__name__)

_METHODS = {"v1/models": "GET", "v1/completions": "POST", "v1/chat/completions": "POST"}
_LOOK_INTERVAL = 0.5  # seconds between two looks at whether the client has gone; nothing tells when it does


class VLLMHandler(BaseHandler):
    """An asynchronous handler, for one request a call.

    It hands requests to the application that vLLM's own server would serve: its Python classes change with every
    release, what it answers does not.
    """

    app: Callable[..., Awaitable[None]]

    def initialize(self, context: Any) -> None:
        """Start the engine that the section `handler` of the model's YAML describes."""
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        self.manifest = context.manifest
        self.model_yaml_config = context.model_yaml_config
        arguments = _arguments(context.model_yaml_config["handler"], Path(context.system_properties["model_dir"]))
        loop = asyncio.get_event_loop_policy().get_event_loop()  # the one that will run `handle`
        self.app = loop.run_until_complete(_start(arguments))
        self.initialized = True

    async def handle(self, data: Any, context: Any) -> list[bytes]:
        """Answer the request as vLLM does. Raises `PredictionException` (404) for a path that is not in the API."""
        started = time.perf_counter()
        assert len(data) == 1, "the vLLM handler takes one request a call: set batchSize to 1"
        path = context.get_request_header(0, "url_path") or ""
        if path not in _METHODS:
            raise PredictionException(f"Unknown API endpoint: {path}", 404)
        pieces = _call(self.app, path, _body(data[0]), context)
        held = await anext(pieces, b"")
        async for piece in pieces:  # one is held back: the last one is what is returned
            send_intermediate_predict_response([held], context.request_ids, "Intermediate", 200, context)
            held = piece
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return [held]


def _arguments(section: dict[str, Any], model_dir: Path) -> Any:
    """vLLM's own arguments; those that it does not know are passed over."""
    engine = dict(section.get("vllm_engine_config") or {})
    model = engine.pop("model", None) or section.get("model_path")
    assert model, "please define model in vllm_engine_config or model_path in handler"
    flags = [f"{name}={_inside(model_dir, path)}" for name, path in (section.get("adapters") or {}).items()]
    parser = importlib.import_module("vllm.entrypoints.openai.cli_args").make_arg_parser(_parser())
    arguments = parser.parse_args(["--lora-modules", *flags] if flags else [])
    arguments.model = _inside(model_dir, model)
    arguments.served_model_name = [model]
    if template := section.get("chat_template"):
        arguments.chat_template = _inside(model_dir, template)
    for name, value in engine.items():
        if hasattr(arguments, name):
            setattr(arguments, name, value)
    return arguments


def _parser() -> Any:
    try:
        module = importlib.import_module("vllm.utils.argparse_utils")
    except ModuleNotFoundError:
        module = importlib.import_module("vllm.utils")
    return module.FlexibleArgumentParser()


def _inside(model_dir: Path, path: str) -> str:
    """A path in the model directory if it exists there, else as it is: a name on the hub, another directory."""
    return str(model_dir / path) if (model_dir / path).exists() else path


async def _start(arguments: Any) -> Callable[..., Awaitable[None]]:
    """The application, with its engine running."""
    vllm = importlib.import_module("vllm")
    server = importlib.import_module("vllm.entrypoints.openai.api_server")
    engine = vllm.AsyncLLMEngine.from_engine_args(vllm.AsyncEngineArgs.from_cli_args(arguments))
    known = {
        "args": arguments,
        "engine_client": engine,
        "vllm_config": getattr(engine, "vllm_config", None),
        "model_config": getattr(engine, "model_config", None),
        "supported_tasks": await engine.get_supported_tasks() if hasattr(engine, "get_supported_tasks") else (),
    }
    app = _with_known(server.build_app, known)
    await _with_known(server.init_app_state, {**known, "state": app.state})
    application: Callable[..., Awaitable[None]] = app
    return application


def _with_known(function: Callable[..., Any], known: dict[str, Any]) -> Any:
    """Call a function with those of the known values that this release of vLLM asks for."""
    names = inspect.signature(function).parameters
    return function(**{name: value for name, value in known.items() if name in names})


def _body(row: dict[str, Any]) -> bytes:
    value = row.get("data") or row.get("body") or b""
    if isinstance(value, str):
        return value.encode()
    return bytes(value) if isinstance(value, bytes | bytearray) else json.dumps(value).encode()


async def _call(app: Callable[..., Awaitable[None]], path: str, body: bytes, context: Any) -> AsyncIterator[bytes]:
    """The pieces of the application's response: one for each event of a stream, one for all of another.

    Sets status and content type in the context. Tells the application when the client has gone.
    """
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
    given = False

    async def receive() -> dict[str, Any]:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        while not any(context.cancelled):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_INTERVAL)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = {name.lower(): value.decode("latin-1") for name, value in message["headers"]}
            context.set_response_status(message["status"], "", 0)
            context.set_response_content_type(0, headers.get(b"content-type", "application/json"))
        elif message.get("body"):
            pieces.put_nowait(message["body"])

    async def run() -> None:
        try:
            await app(_scope(path), receive, send)
        finally:
            pieces.put_nowait(None)

    task = asyncio.ensure_future(run())
    try:
        while (piece := await pieces.get()) is not None:
            yield piece
        await task  # raises what the application has raised
    finally:
        task.cancel()


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": _METHODS[path],
        "scheme": "http",
        "path": f"/{path}",
        "raw_path": f"/{path}".encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
