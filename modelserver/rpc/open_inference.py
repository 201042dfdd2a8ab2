"""`GRPCInferenceService`, under both of its names: Open Inference.

Tensors are read and written by workers; here a request is bytes that say where they want to go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from modelserver.engine.job import Job, Membership
from modelserver.engine.requests import VersionStatus
from modelserver.errors import BadRequest, MalformedMessage, ModelApiDisabled, ServerError
from modelserver.rpc.call import Call
from modelserver.rpc.conversation import Question
from modelserver.rpc.encoding import parse, stream_infer_response
from modelserver.rpc.jobs import Answered, Jobs
from modelserver.rpc.messages import (
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
    ModelStreamInferResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse,
    RoutedModelInferRequest,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)
from modelserver.rpc.render import Refusal, plain_refusal
from modelserver.rpc.undertakings import Undertakings
from modelserver.settings.open_inference import DeclaredTensor
from modelserver.settings.version import version
from modelserver.wire.frames import INFER, Part

_LIVE: Final[bytes] = ServerLiveResponse(live=True).SerializeToString()


class OpenInference:
    """The methods that both services have."""

    def __init__(self, engine: Engine, jobs: Jobs, mime: str) -> None:
        self._engine = engine
        self._jobs = jobs
        self._mime = mime  # tells workers which of the services has asked

    async def server_live(self, call: Call) -> bytes:
        """Whoever answers is alive."""
        await call.read_one()
        return _LIVE

    async def server_ready(self, call: Call) -> bytes:
        """One broken model does not take all others out of service, but it may hold up the start."""
        await call.read_one()
        return _serialize(ServerReadyResponse(ready=not self._engine.unready()))

    async def server_metadata(self, call: Call) -> bytes:
        """Who this is."""
        await call.read_one()
        return _serialize(ServerMetadataResponse(name=SERVER_NAME, version=version(), extensions=EXTENSIONS))

    async def model_ready(self, call: Call) -> bytes:
        """Whether a version has the workers it should have. Raises BadRequest, ModelNotFound, VersionNotFound."""
        request = parse(ModelReadyRequest, await call.read_one())
        if not request.name:
            raise BadRequest("Parameter name is required.")
        (status,) = self._engine.describe(request.name, request.version or None)
        return _serialize(ModelReadyResponse(ready=is_ready(status)))

    async def model_metadata(self, call: Call) -> bytes:
        """Versions and declared tensors of a model. Raises BadRequest, ModelNotFound, VersionNotFound."""
        request = parse(ModelMetadataRequest, await call.read_one())
        if not request.name:
            raise BadRequest("Parameter model_name is required.")
        (status,) = self._engine.describe(request.name, request.version or None)
        every = [entry.model_version for entry in self._engine.describe(request.name, "all")]
        return _serialize(ModelMetadataResponse(name=request.name, versions=every, **_declared(status)))

    async def infer(self, call: Call) -> bytes:
        """One response; the pieces of a handler that streams are merged, as messages of protobuf are when joined."""
        job, answered = self._begin(call, await call.read_one())
        return await self._jobs.whole(job, answered)

    def _begin(self, call: Call, message: bytes) -> tuple[Job, Answered]:
        """Apart, so that the request is gone while the job runs: protobuf has kept a copy of the tensors in it."""
        request = parse(RoutedModelInferRequest, message)
        job = self.new_job(request, message, call.patience)
        return job, self._jobs.begin(call, job, request.model_version)

    def new_job(self, request: Any, message: bytes, patience: float) -> Job:
        """A job of a request that has been read in part. Raises BadRequest."""
        parts = [Part("body", self._mime, message)]
        job = self._jobs.new(request.model_name, request.model_version, parts, patience, kind=INFER)
        if request.parameters:
            job.sequence = membership_of(request.parameters)
        return job


def membership_of(parameters: Mapping[str, Any]) -> Membership | None:
    """What the parameters of a request say of its sequence; an id of 0 is none.

    Those of a wrong kind say nothing: they may be the handler's.
    """
    id, start, end = (parameters.get(name) for name in ("sequence_id", "sequence_start", "sequence_end"))
    if id is None:
        return None
    value = id.string_param or str(id.int64_param or id.uint64_param or "")
    return Membership(value, start=start is not None and start.bool_param, end=end is not None and end.bool_param)


class Inferences:
    """The tongue of `ModelStreamInfer`: answers come in the order of their requests."""

    def __init__(self, open_inference: OpenInference) -> None:
        self._open_inference = open_inference

    def question(self, message: bytes, patience: float) -> Question:
        """What cannot be understood is answered too."""
        try:
            request = parse(RoutedModelInferRequest, message)
        except MalformedMessage as error:
            return Question(self.refuse(error), "", "", "")
        job: Job | Refusal
        try:
            job = self._open_inference.new_job(request, message, patience)
        except BadRequest as error:
            job = self.refuse(error)
        return Question(job, request.model_version, "", request.id)

    def answer(self, body: bytes, question: Question) -> bytes:
        """A `ModelStreamInferResponse`."""
        return stream_infer_response(body)

    def refuse(self, error: ServerError) -> Refusal:
        """In one line."""
        return plain_refusal(error)

    def refusal(self, refusal: Refusal, question: Question) -> bytes:
        """A `ModelStreamInferResponse` with an error, which tells of which request."""
        text = refusal.message.encode("utf-8", "replace").decode()
        asked = ModelInferResponse(id=question.id) if question.id else None
        return _serialize(ModelStreamInferResponse(error_message=text, infer_response=asked))


class Statistics:
    """What the versions of models have done; of the standard service only."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def tell(self, call: Call) -> bytes:
        """Of one version, of all versions of a model, or of all models.

        Raises BadRequest, ModelNotFound, VersionNotFound.
        """
        request = parse(ModelStatisticsRequest, await call.read_one())
        if request.version and not request.name:
            raise BadRequest("Parameter name is required.")
        found = await statistics(self._engine, call.telemetry, request.name or None, request.version or None)
        return _serialize(ModelStatisticsResponse(model_stats=found))


class Repository:
    """The methods that only the standard service has: models come and go."""

    def __init__(self, engine: Engine, *, model_api: bool, workers: int) -> None:
        self._engine = engine
        self._model_api = model_api  # off: models can neither be loaded nor unloaded
        self._workers = workers  # of a model that does not say it itself
        self._undertakings = Undertakings()

    async def index(self, call: Call) -> bytes:
        """All registered versions, or those that are ready."""
        request = parse(RepositoryIndexRequest, await call.read_one())
        entries = repository_index(self._engine, ready_only=request.ready)
        return _serialize(RepositoryIndexResponse(models=[entry._asdict() for entry in entries]))

    async def load(self, call: Call) -> bytes:
        """Register a model of the model store. Raises ModelApiDisabled, BadRequest, what the engine raises."""
        name = self._named(parse(RepositoryModelLoadRequest, await call.read_one()))
        await self._undertakings.finish(load_model(self._engine, name, self._workers))
        return _serialize(RepositoryModelLoadResponse(model_name=name, isLoaded=True))

    async def unload(self, call: Call) -> bytes:
        """Unregister all versions of a model. Raises ModelApiDisabled, BadRequest, what the engine raises."""
        name = self._named(parse(RepositoryModelUnloadRequest, await call.read_one()))
        await self._undertakings.finish(unload_model(self._engine, name))
        return _serialize(RepositoryModelUnloadResponse(model_name=name, isUnloaded=True))

    def _named(self, request: Any) -> str:
        """Clients of KServe know no repositories: their first field is the model."""
        if not self._model_api:
            raise ModelApiDisabled
        name: str = request.model_name or request.repository_name
        return name


def _declared(status: VersionStatus) -> dict[str, list[dict[str, Any]]]:
    """The tensors of a model whose configuration tells of them."""
    declared = status.options.open_inference

    def tensors(names: Sequence[DeclaredTensor]) -> list[dict[str, Any]]:
        return [{"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape} for tensor in names]

    return {"inputs": tensors(declared.inputs), "outputs": tensors(declared.outputs)}


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
