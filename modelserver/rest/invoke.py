"""The other ways to a prediction: SageMaker's two routes, the one of old clients, and version 1 of KServe's protocol.

On the first three a query value is a parameter too, and only the client says whether it wants an explanation.
"""

from __future__ import annotations

from functools import partial

from modelserver.dialect.open_inference import is_ready
from modelserver.dialect.ports import Engine
from modelserver.engine.job import Job
from modelserver.errors import BadRequest, MethodNotAllowed, ResourceNotFound
from modelserver.rest.body import parts_of, query_parts
from modelserver.rest.call import Call
from modelserver.rest.description import describe_model
from modelserver.rest.exchange import Exchange
from modelserver.rest.parameters import Query
from modelserver.rest.predict import answer
from modelserver.rest.replies import request_headers, submit
from modelserver.rest.router import Endpoint
from modelserver.wire.frames import EXPLAIN, KSERVE_EXPLAIN, KSERVE_PREDICT, PREDICT, Part, Request


def invocations(engine: Engine) -> Endpoint:
    """`/invocations`: the model is named by the query, by being the only one of the start, or by a field of a form."""

    def invoke(call: Call) -> None:
        if len(call.segments) != 1:
            raise ResourceNotFound
        parts, size = _body_of(call)
        _invoke(call, engine, _named_model(call, engine, parts), None, parts, size)

    return invoke


def invocation(engine: Engine) -> Endpoint:
    """`/models/{model}/invoke`."""

    def invoke(call: Call) -> None:
        _invoke(call, engine, call.segments[1], None, *_body_of(call))

    return invoke


def legacy_prediction(engine: Engine) -> Endpoint:
    """`/{model}[/{version}]/predict`."""

    def predict(call: Call) -> None:
        model, *version = call.segments[:-1]
        _invoke(call, engine, model, version[0] if version else None, *_body_of(call))

    return predict


def kserve_v1(engine: Engine) -> Endpoint:
    """`/v1/models/{model}:predict` or `:explain`: any method; and `GET /v1/models/{model}`, whether it is ready."""
    ready = readiness(engine)

    def serve(call: Call) -> None:
        model, colon, _ = (named := call.segments[2]).partition(":")
        if ":predict" in named or ":explain" in named:
            _predict(call, engine, model, explain=":predict" not in named)
        elif colon:
            raise ResourceNotFound
        else:
            ready(call)

    return serve


def readiness(engine: Engine) -> Endpoint:
    """`GET /v1/models/{model}`: whether the default version has the workers it should have, at least one."""

    def tell(call: Call) -> None:
        if call.method != "GET":
            raise MethodNotAllowed
        model = call.segments[2].partition(":")[0]
        (version,) = engine.describe(model, None)
        call.respond_json(200, {"name": model, "ready": is_ready(version)})

    return tell


def model_names(engine: Engine) -> Endpoint:
    """`GET /v1/models`: the names of all models."""

    def tell(call: Call) -> None:
        if call.method != "GET":
            raise MethodNotAllowed
        call.respond_json(200, {"models": [name for name, _ in engine.list_models()]})

    return tell


def _body_of(call: Call) -> tuple[list[Part], int]:
    body = call.exchange.body()
    return parts_of(call.header(b"content-type"), body), len(body)


def _named_model(call: Call, engine: Engine, parts: list[Part]) -> str:
    if (model := Query(call.query).text("model_name")) is not None:
        return model
    startup = engine.startup_models()
    if len(startup) == 1:
        return startup[0]
    for part in reversed(parts):
        if part.name == "model_name" and part.value:
            return part.value.decode("utf-8", "replace")
    raise BadRequest("Parameter model_name is required.")


def _invoke(call: Call, engine: Engine, model: str, version: str | None, parts: list[Part], size: int) -> None:
    kind = EXPLAIN if _explains(call.exchange) else PREDICT  # predictions and explanations share no batch
    submit_parts(call, engine, model, version, [*query_parts(call.query), *parts], size, {}, kind)


def _predict(call: Call, engine: Engine, model: str, *, explain: bool) -> None:
    kind = KSERVE_EXPLAIN if explain else KSERVE_PREDICT
    submit_parts(call, engine, model, None, *_body_of(call), {"explain": str(explain)}, kind)


def submit_parts(
    call: Call,
    engine: Engine,
    model: str,
    version: str | None,
    parts: list[Part],
    size: int,
    extra: dict[str, str],
    kind: int,
) -> None:
    """Make a job of a request, which is answered later; OPTIONS describes the model instead. `size` in bytes."""
    if call.method == "OPTIONS":
        describe_model(call, engine, model, version)
        return
    request = Request(call.request_id, parts, request_headers(call.exchange), extra)
    label = "default" if version is None else version
    job = Job(request, model, label, call.exchange.received, partial(answer, call), kind)
    job.size = size
    submit(call, engine, job, version)


def _explains(exchange: Exchange) -> bool:
    """Handlers look for exactly this; the last header of a name counts."""
    values = [value for name, value in exchange.raw_headers if name == b"explain"]
    return values[-1:] == [b"True"]
