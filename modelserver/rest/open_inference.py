"""`/v2`: the Open Inference Protocol. Tensors are read and written by workers; a request here is bytes and headers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from modelserver.dialect.open_inference import (
    EXTENSIONS,
    SERVER_NAME,
    is_ready,
    load_model,
    repository_index,
    statistics,
    unload_model,
)
from modelserver.dialect.ports import Engine
from modelserver.errors import MethodNotAllowed, ModelApiDisabled, NotSupported
from modelserver.rest.body import media_type, parts_of
from modelserver.rest.call import Call
from modelserver.rest.invoke import submit_parts
from modelserver.rest.parameters import JsonParameters
from modelserver.rest.router import Endpoint, Route, route
from modelserver.settings.open_inference import DeclaredTensor
from modelserver.settings.table import Settings
from modelserver.settings.version import version as server_version
from modelserver.wire.frames import INFER, INFER_EXPLAIN, PROTOBUF, TORCHSERVE_PROTOBUF, Part

_READ: Final = ("GET", "HEAD")
_BINARY: Final = "application/octet-stream"
_NOTED: Final = frozenset({b"inference-header-content-length", b"content-type", b"content-encoding"})
# Paths of extensions that are not offered, and what clients are told of them.
_NOT_OFFERED: Final = {
    "/v2/models/{model}/config": "The model configuration extension",
    "/v2/models/{model}/versions/{version}/config": "The model configuration extension",
    "/v2/models/{model}/trace/setting": "The trace extension",
    "/v2/trace/setting": "The trace extension",
    "/v2/logging": "The logging extension",
    "/v2/systemsharedmemory/...": "The shared memory extension",
    "/v2/cudasharedmemory/...": "The shared memory extension",
}


def inference_routes(engine: Engine) -> list[Route]:
    """What is always served: inference and explanations by the default version."""
    return [
        route("/v2/models/{model}/infer", inference(engine, explain=False)),
        route("/v2/models/{model}/explain", inference(engine, explain=True)),
    ]


def protocol_routes(engine: Engine, settings: Settings) -> list[Route]:
    """The whole protocol, where it is switched on."""
    models = Models(engine)
    repository = Repository(engine, model_api=settings.enable_model_api, workers=settings.default_workers_per_model)
    return [
        route("/v2", reading(lambda call: _metadata())),
        route("/v2/health/live", reading(lambda call: {"live": True})),
        route("/v2/health/ready", readiness(engine)),
        *(route(path, _not_offered(extension)) for path, extension in _NOT_OFFERED.items()),
        route("/v2/models", reading(models.names)),
        route("/v2/models/stats", models.statistics),  # before the model of this name
        route("/v2/models/{model}/stats", models.statistics),
        route("/v2/models/{model}/versions/{version}/stats", models.statistics),
        route("/v2/models/{model}", reading(models.metadata)),
        route("/v2/models/{model}/ready", models.readiness),
        route("/v2/models/{model}/versions/{version}", reading(models.metadata)),
        route("/v2/models/{model}/versions/{version}/ready", models.readiness),
        route("/v2/models/{model}/versions/{version}/infer", posting(inference(engine, explain=False), "OPTIONS")),
        route("/v2/models/{model}/versions/{version}/explain", posting(inference(engine, explain=True), "OPTIONS")),
        route("/v2/repository/index", posting(repository.index)),
        route("/v2/repository/models/{model}/load", posting(repository.load)),
        route("/v2/repository/models/{model}/unload", posting(repository.unload)),
    ]


def inference(engine: Engine, *, explain: bool) -> Endpoint:
    """`/v2/models/{model}[/versions/{version}]/infer` or `/explain`: any method."""
    kind = INFER_EXPLAIN if explain else INFER
    explained = str(explain)

    def infer(call: Call) -> None:
        model, version = _named(call)
        body = call.exchange.body()
        submit_parts(call, engine, model, version, _parts_of(call, body), len(body), {"explain": explained}, kind)

    return infer


def reading(read: Callable[[Call], Any]) -> Endpoint:
    """An endpoint for GET that answers 200 with what `read` returns."""

    def answer(call: Call) -> None:
        _require(call, _READ)
        call.respond_json(200, read(call))

    return answer


def readiness(engine: Engine) -> Endpoint:
    """`/v2/health/ready`: one broken model does not take all others out of service, but it may hold up the start."""

    def answer(call: Call) -> None:
        _require(call, _READ)
        if reasons := engine.unready():
            call.respond_json(503, {"ready": False, "error": f"Not ready: {'; '.join(reasons)}"})
        else:
            call.respond_json(200, {"ready": True})

    return answer


def posting(endpoint: Endpoint, *others: str) -> Endpoint:
    """An endpoint for POST, and other methods if they are named."""

    def checked(call: Call) -> Coroutine[Any, Any, None] | None:
        _require(call, ("POST", *others))
        return endpoint(call)

    return checked


class Models:
    """What clients can know of models."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def names(self, call: Call) -> dict[str, Any]:
        """Of all models."""
        return {"models": [name for name, _ in self._engine.list_models()]}

    def metadata(self, call: Call) -> dict[str, Any]:
        """Versions and declared tensors. Raises ModelNotFound, VersionNotFound."""
        model, version = _named(call)
        (status,) = self._engine.describe(model, version)
        declared = status.options.open_inference
        return {
            "name": model,
            "versions": [entry.model_version for entry in self._engine.describe(model, "all")],
            "platform": "",
            "inputs": _described(declared.inputs),
            "outputs": _described(declared.outputs),
        }

    def readiness(self, call: Call) -> None:
        """Whether a version has the workers it should have. Raises ModelNotFound, VersionNotFound."""
        _require(call, _READ)
        model, version = _named(call)
        (status,) = self._engine.describe(model, version)
        if is_ready(status):
            call.respond_json(200, {"name": model, "ready": True})
        else:
            error = f"Model with name {model} is not ready."
            call.respond_json(503, {"name": model, "ready": False, "error": error})

    async def statistics(self, call: Call) -> None:
        """Of one version, of all versions of a model, or of all models. Raises ModelNotFound, VersionNotFound."""
        _require(call, _READ)
        model, version = _named(call) if len(call.segments) > 3 else (None, None)
        found = await statistics(self._engine, call.telemetry, model, version)
        call.respond_json(200, {"model_stats": found})


class Repository:
    """Models come and go."""

    def __init__(self, engine: Engine, *, model_api: bool, workers: int) -> None:
        self._engine = engine
        self._model_api = model_api  # off: models can neither be loaded nor unloaded
        self._workers = max(1, workers)  # of a model that does not say it itself

    def index(self, call: Call) -> None:
        """All registered versions, or with `{"ready": true}` those that are ready. Raises BadRequest."""
        body = call.exchange.body()
        ready_only = JsonParameters(body).boolean("ready", default=False) if body else False
        entries = repository_index(self._engine, ready_only=ready_only)
        call.respond_json(200, [entry._asdict() for entry in entries])

    async def load(self, call: Call) -> None:
        """Register a model of the model store. Raises ModelApiDisabled, and what the engine raises."""
        name = self._admitted(call)
        await load_model(self._engine, name, self._workers)
        call.respond_json(200, {"name": name, "load": True})

    async def unload(self, call: Call) -> None:
        """Unregister all versions of a model. Raises ModelApiDisabled, and what the engine raises."""
        name = self._admitted(call)
        await unload_model(self._engine, name)
        call.respond_json(200, {"name": name, "unload": True})

    def _admitted(self, call: Call) -> str:
        if not self._model_api:
            raise ModelApiDisabled
        return call.segments[3]


def _parts_of(call: Call, body: bytes) -> list[Part]:
    """Only forms are taken apart here; who sends tensors behind its JSON, or inflates, is read by the worker."""
    said: dict[bytes, bytes] = {}
    for name, value in call.exchange.headers:
        if name in _NOTED:
            said.setdefault(name, value)
    if said.get(b"inference-header-content-length"):
        return [Part("body", _BINARY, body)]
    content_type = said.get(b"content-type", b"")
    if said.get(b"content-encoding"):
        parts = [Part("body", media_type(content_type), body)]
    else:
        parts = parts_of(content_type, body)
    for part in parts:
        if part.mime in (PROTOBUF, TORCHSERVE_PROTOBUF):  # which is how the worker knows messages of gRPC
            part.mime = ""
    return parts


def _named(call: Call) -> tuple[str, str | None]:
    """Model and version of a path; text behind a colon does not belong to the model."""
    version = call.segments[4] if len(call.segments) > 4 else None
    return call.segments[2].partition(":")[0], version


def _require(call: Call, methods: Iterable[str]) -> None:
    if call.method not in methods:
        raise MethodNotAllowed


def _metadata() -> dict[str, Any]:
    """The misspelt member is TorchServe's."""
    extensions = [*EXTENSIONS, "binary_tensor_data", "statistics"]
    members = {"name": SERVER_NAME, "version": server_version()}
    return {**members, "extensions": extensions, "extenstion": list(EXTENSIONS)}


def _described(tensors: Iterable[DeclaredTensor]) -> list[dict[str, Any]]:
    return [{"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)} for tensor in tensors]


def _not_offered(extension: str) -> Endpoint:
    def refuse(call: Call) -> None:
        raise NotSupported(f"{extension} is not supported")

    return refuse
