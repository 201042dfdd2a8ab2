"""The table of operations that the API descriptions list; what a path does stands in the routes of `apps.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

Schema = dict[str, Any]

JSON: Final = "application/json"
ANY: Final = "*/*"
EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the path (always required) or in the query."""

    name: str
    text: str
    type: str = "string"
    default: str | int | bool | None = None
    choices: tuple[str, ...] | None = None
    place: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a status means; without a schema nothing is said about the body."""

    status: int
    text: str
    schema: Schema | None = None
    mime: str = JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    id: str
    text: str
    parameters: tuple[Parameter, ...] = ()
    takes_body: bool = False  # any bytes of any type
    answers: tuple[Answer, ...]
    deprecated: bool = False


def members(required: Sequence[str], **properties: Schema) -> Schema:
    """An object with these members."""
    return {"type": "object", "required": list(required) or None, "properties": properties}


def typed(name: str, text: str | None = None) -> Schema:
    """A value of a simple type."""
    return {"type": name, "description": text}


def array(items: Schema) -> Schema:
    """A list of these."""
    return {"type": "array", "items": items}


_ANYTHING: Final = {"type": "string", "format": "binary"}
_STATUS: Final = members(["status"], status=typed("string", "What was done, or how the server is."))
_ERROR: Final = members(
    ["code", "type", "message"],
    code=typed("integer", "The status of the response."),
    type=typed("string", "The kind of error, for programs."),
    message=typed("string", "What went wrong, for people."),
)
_LIST: Final = members(
    ["models"],
    nextPageToken=typed("string", "Where the next page begins; absent on the last one."),
    models=array(members(["modelName", "modelUrl"], modelName=typed("string"), modelUrl=typed("string"))),
)
_WORKER: Final = members(
    ["id", "status"],
    id=typed("string"),
    startTime=typed("string"),
    status=typed("string", "READY, or UNLOADING in every other state."),
    memoryUsage=typed("integer", "Bytes."),
    pid=typed("integer"),
    gpu=typed("boolean"),
    gpuUsage=typed("string"),
)
_VERSIONS: Final = array(
    members(
        ["modelName", "modelVersion", "modelUrl", "minWorkers", "maxWorkers", "workers"],
        modelName=typed("string"),
        modelVersion=typed("string"),
        modelUrl=typed("string"),
        runtime=typed("string"),
        minWorkers=typed("integer"),
        maxWorkers=typed("integer"),
        batchSize=typed("integer"),
        maxBatchDelay=typed("integer", "Milliseconds."),
        responseTimeout=typed("integer", "Seconds."),
        startupTimeout=typed("integer", "Seconds."),
        loadedAtStartup=typed("boolean"),
        workers=array(_WORKER),
        jobQueueStatus=members([], remainingCapacity=typed("integer"), pendingRequests=typed("integer")),
        customizedMetadata=typed("object", "What the handler says of itself, if it was asked."),
    )
)

_FAILED: Final = Answer(500, "The server or a worker failed.", _ERROR)
_BAD: Final = Answer(400, "The parameters cannot be used.", _ERROR)
_UNKNOWN: Final = Answer(404, "There is no such model, version or archive.", _ERROR)
_STARTED: Final = Answer(202, "Accepted; workers come and go behind it.", _STATUS)
_PARTIAL: Final = Answer(210, "Some of the workers asked for are running.", _STATUS)

MODEL: Final = Parameter("model_name", "Name of the model.", place="path", required=True)
_VERSION: Final = Parameter("model_version", "Version of the model.", place="path", required=True)
_IGNORED: Final = "Accepted and ignored."


def _versioned(operation: Operation) -> Operation:
    """The same for a named version instead of the default one."""
    return replace(
        operation,
        path=operation.path + "/{model_version}",
        id=f"version_{operation.id}",
        text=operation.text.replace("the default version of a model", "one version of a model"),
        parameters=(operation.parameters[0], _VERSION, *operation.parameters[1:]),
    )


_DESCRIPTION: Final = Operation(
    method="options",
    path="/",
    id="apiDescription",
    text="This document.",
    answers=(Answer(200, "An OpenAPI document.", typed("object")), _FAILED),
)
_OLD_DESCRIPTION: Final = replace(
    _DESCRIPTION, method="get", path="/api-description", id="api-description", deprecated=True
)
_SCRAPE: Final = Operation(
    method="get",
    path="/metrics",
    id="metrics",
    text="The metrics of the server and its models, in the text format of Prometheus.",
    parameters=(Parameter("name[]", "Only samples of this name; may be repeated."),),
    answers=(Answer(200, "Samples.", typed("string"), EXPOSITION), _FAILED),
)
_PING: Final = Operation(
    method="get",
    path="/ping",
    id="ping",
    text="Whether every model has the workers it should have.",
    answers=(Answer(200, "Healthy.", _STATUS), Answer(500, "Unhealthy.", _STATUS)),
)
_PREDICT: Final = Operation(
    method="post",
    path="/predictions/{model_name}",
    id="predictions",
    text="Run the default version of a model on the body: one input, or the fields of a form.",
    parameters=(MODEL,),
    takes_body=True,
    answers=(
        Answer(200, "What the handler returned, of the type it set.", _ANYTHING, ANY),
        _UNKNOWN,
        _FAILED,
        Answer(503, "No worker takes the request, or the handler failed.", _ERROR),
    ),
)
# An id stands once in a document, or the document is not valid and generators of clients stumble.
_PREDICT_V1: Final = replace(_PREDICT, path="/v1/models/{model_name}:predict", id="v1_predictions")
_PREDICT_V2: Final = replace(_PREDICT, path="/v2/models/{model_name}/infer", id="v2_predictions")

_LIST_MODELS: Final = Operation(
    method="get",
    path="/models",
    id="listModels",
    text="The registered models in the order of their names, page by page.",
    parameters=(
        Parameter("limit", "Models of a page, at most 100.", "integer", 100),
        Parameter("next_page_token", "The token that came with the page before."),
    ),
    answers=(Answer(200, "A page.", _LIST), _FAILED),
)
_REGISTER: Final = Operation(
    method="post",
    path="/models",
    id="registerModel",
    text="Register a version of a model and start its workers. A JSON body may carry the parameters instead.",
    parameters=(
        Parameter("url", "A file or directory of the model store, or a URL to download.", required=True),
        Parameter("model_name", "Instead of the name in the archive."),
        Parameter("handler", "Instead of the handler in the archive, `module:function`."),
        Parameter("runtime", "Instead of the runtime in the archive.", choices=("PYTHON", "PYTHON3", "LSP")),
        Parameter("batch_size", "Requests of a batch, at most.", "integer", 1),
        Parameter("max_batch_delay", "Milliseconds that an incomplete batch waits.", "integer", 100),
        Parameter("response_timeout", "Seconds that a prediction may take.", "integer", 120),
        Parameter("startup_timeout", "Seconds that a worker may take to load the model.", "integer", 120),
        Parameter("initial_workers", "Workers to start.", "integer", 0),
        Parameter("synchronous", "Answer when the workers have loaded.", "boolean", True),
        Parameter("s3_sse_kms", "Sign the download as S3 with KMS encryption demands.", "boolean", False),
    ),
    answers=(
        Answer(200, "Registered.", _STATUS),
        Answer(202, "Registered; its workers are being started.", _STATUS),
        _PARTIAL,
        _BAD,
        _UNKNOWN,
        Answer(409, "This version is registered already.", _ERROR),
        _FAILED,
    ),
)
_DESCRIBE: Final = Operation(
    method="get",
    path="/models/{model_name}",
    id="describeModel",
    text="State and settings of the default version of a model.",
    parameters=(
        MODEL,
        Parameter("customized", "Ask the handler for what it says of itself, too.", "boolean", False),
    ),
    answers=(
        Answer(200, "One element per version.", _VERSIONS),
        _UNKNOWN,
        _FAILED,
        Answer(503, "The handler was to be asked: no worker takes the request, or the handler failed.", _ERROR),
    ),
)
_SCALE: Final = Operation(
    method="put",
    path="/models/{model_name}",
    id="setAutoScale",
    text="Change how many workers the default version of a model has.",
    parameters=(
        MODEL,
        Parameter("min_worker", "Fewer workers than this: others are started.", "integer", 1),
        Parameter("max_worker", "More workers than this: some are ended. Absent: as min_worker.", "integer"),
        Parameter("number_gpu", _IGNORED, "integer", 0),
        Parameter("synchronous", "Answer when it is done.", "boolean", False),
        Parameter("timeout", _IGNORED, "integer", -1),
    ),
    answers=(Answer(200, "Done.", _STATUS), _STARTED, _PARTIAL, _BAD, _UNKNOWN, _FAILED),
)
_UNREGISTER: Final = Operation(
    method="delete",
    path="/models/{model_name}",
    id="unregisterModel",
    text="Take the default version of a model out of service.",
    parameters=(
        MODEL,
        Parameter("synchronous", _IGNORED, "boolean", False),
        Parameter("timeout", _IGNORED, "integer", -1),
    ),
    answers=(
        Answer(200, "It is gone.", _STATUS),
        _STARTED,
        _UNKNOWN,
        Answer(408, "Its workers did not end in time.", _ERROR),
        _FAILED,
    ),
)
_SET_DEFAULT: Final = Operation(
    method="put",
    path="/models/{model_name}/{model_version}/set-default",
    id="setDefault",
    text="Make a version the one that serves where none is named.",
    parameters=(MODEL, _VERSION),
    answers=(Answer(200, "Done.", _STATUS), _UNKNOWN, _FAILED),
)

_TENSORS: Final = array(
    members(
        ["name", "datatype", "shape"],
        name=typed("string"),
        datatype=typed("string", "BOOL, UINT8, ..., FP64, BF16 or BYTES."),
        shape=array(typed("integer", "-1 is any number.")),
    )
)
_METADATA: Final = members(
    ["name", "versions", "platform", "inputs", "outputs"],
    name=typed("string"),
    versions=array(typed("string")),
    platform=typed("string"),
    inputs=_TENSORS,
    outputs=_TENSORS,
)
_READINESS: Final = members(["name", "ready"], name=typed("string"), ready=typed("boolean"))
_INDEX: Final = array(
    members(
        ["name", "version", "state"],
        name=typed("string"),
        version=typed("string"),
        state=typed("string", "READY or UNAVAILABLE."),
        reason=typed("string", "Why it is unavailable."),
    )
)
_DISABLED: Final = Answer(405, "Models cannot be changed here.", _ERROR)
_SERVER: Final = members(
    ["name", "version", "extensions"],
    name=typed("string"),
    version=typed("string"),
    extensions=array(typed("string")),
)


def _question(path: str, id: str, text: str, schema: Schema, *answers: Answer, **others: Any) -> Operation:
    """A GET of the Open Inference Protocol."""
    answers = (Answer(200, "The answer.", schema), *answers)
    return Operation(method="get", path=path, id=id, text=text, answers=answers, **others)


def _of_version(operation: Operation) -> Operation:
    """The same for a named version instead of the default one, as the Open Inference Protocol writes it."""
    return replace(
        operation,
        path=operation.path.replace("{model_name}", "{model_name}/versions/{model_version}"),
        id=f"version_{operation.id}",
        text=operation.text.replace("the default version of a model", "one version of a model"),
        parameters=(operation.parameters[0], _VERSION, *operation.parameters[1:]),
    )


_EXPLAIN_V2: Final = replace(
    _PREDICT_V2,
    path="/v2/models/{model_name}/explain",
    id="v2_explanations",
    text="Let the default version of a model explain what it would say to the body.",
)
_MODEL_METADATA: Final = _question(
    "/v2/models/{model_name}",
    "v2_metadata",
    "Versions of a model, and the tensors that the default version of a model declares.",
    _METADATA,
    _UNKNOWN,
    parameters=(MODEL,),
)
_SERVER_READY: Final = _question(
    "/v2/health/ready",
    "v2_server_ready",
    "The same; with `ready_after_models` whether the models of the start have been ready.",
    members(["ready"], ready=typed("boolean")),
    Answer(503, "Some have not.", members(["ready", "error"], ready=typed("boolean"), error=typed("string"))),
)
_MODEL_READY: Final = _question(
    "/v2/models/{model_name}/ready",
    "v2_ready",
    "Whether the default version of a model has the workers it should have.",
    _READINESS,
    _UNKNOWN,
    Answer(503, "It is not ready.", _READINESS),
    parameters=(MODEL,),
)
_DURATION: Final = members(["count", "ns"], count=typed("integer"), ns=typed("integer", "Nanoseconds, in total."))
_COMPUTED: Final = {
    "compute_input": _DURATION,
    "compute_infer": _DURATION,
    "compute_output": _DURATION,
}
_STATISTICS: Final = members(
    ["model_stats"],
    model_stats=array(
        members(
            [
                "name",
                "version",
                "last_inference",
                "inference_count",
                "execution_count",
                "inference_stats",
                "batch_stats",
            ],
            name=typed("string"),
            version=typed("string"),
            last_inference=typed("integer", "Arrival of the latest request, in milliseconds since 1970; 0: none."),
            inference_count=typed("integer", "Requests that succeeded."),
            execution_count=typed("integer", "Batches that the handler got through."),
            inference_stats=members(
                ["success", "fail", "queue", *_COMPUTED, "cache_hit", "cache_miss"],
                success=_DURATION,
                fail=_DURATION,
                queue=_DURATION,
                **_COMPUTED,
                cache_hit=_DURATION,
                cache_miss=_DURATION,
            ),
            batch_stats=array(members(["batch_size", *_COMPUTED], batch_size=typed("integer"), **_COMPUTED)),
        )
    ),
)
_ALL_STATISTICS: Final = _question(
    "/v2/models/stats",
    "v2_all_statistics",
    "How many requests the versions of all models have answered, and where the time went.",
    _STATISTICS,
)
_MODEL_STATISTICS: Final = _question(
    "/v2/models/{model_name}/stats",
    "v2_statistics",
    "The same, of all versions of a model.",
    _STATISTICS,
    _UNKNOWN,
    parameters=(MODEL,),
)
_VERSION_STATISTICS: Final = replace(_of_version(_MODEL_STATISTICS), text="The same, of one version of a model.")
_REPOSITORY_INDEX: Final = Operation(
    method="post",
    path="/v2/repository/index",
    id="v2_index",
    text='All registered versions; with the body `{"ready": true}` those that are ready.',
    takes_body=True,
    answers=(Answer(200, "One element per version.", _INDEX), _BAD),
)
_LOAD: Final = Operation(
    method="post",
    path="/v2/repository/models/{model_name}/load",
    id="v2_load",
    text="Register a model of the model store, and wait for its workers.",
    parameters=(MODEL,),
    answers=(
        Answer(200, "It is ready.", members(["name", "load"], name=typed("string"), load=typed("boolean"))),
        _UNKNOWN,
        _DISABLED,
        _FAILED,
    ),
)
_UNLOAD: Final = Operation(
    method="post",
    path="/v2/repository/models/{model_name}/unload",
    id="v2_unload",
    text="Unregister all versions of a model.",
    parameters=(MODEL,),
    answers=(
        Answer(200, "It is gone.", members(["name", "unload"], name=typed("string"), unload=typed("boolean"))),
        _UNKNOWN,
        _DISABLED,
        _FAILED,
    ),
)

OPEN_INFERENCE: Final = (
    _question("/v2", "v2_server", "Which server this is, and what it knows of the protocol.", _SERVER),
    _question("/v2/health/live", "v2_live", "A sign of life.", members(["live"], live=typed("boolean"))),
    _SERVER_READY,
    _question(
        "/v2/models", "v2_models", "The names of all models.", members(["models"], models=array(typed("string")))
    ),
    *(_MODEL_METADATA, _MODEL_READY, _EXPLAIN_V2),
    *map(_of_version, (_MODEL_METADATA, _MODEL_READY, _PREDICT_V2, _EXPLAIN_V2)),
    *(_ALL_STATISTICS, _MODEL_STATISTICS, _VERSION_STATISTICS),
    *(_REPOSITORY_INDEX, _LOAD, _UNLOAD),
)
METRICS: Final = (_SCRAPE,)
MODEL_MANAGEMENT: Final = (
    *(_DESCRIBE, _SCALE, _UNREGISTER),
    *map(_versioned, (_DESCRIBE, _SCALE, _UNREGISTER)),
    _SET_DEFAULT,
)
INFERENCE: Final = (
    _DESCRIPTION,
    _PING,
    _PREDICT_V1,
    _PREDICT_V2,
    _PREDICT,
    _versioned(_PREDICT),
    _OLD_DESCRIPTION,
    _SCRAPE,
)
MANAGEMENT: Final = (_DESCRIPTION, _LIST_MODELS, _REGISTER, *MODEL_MANAGEMENT, _OLD_DESCRIPTION, _SCRAPE)


def predictions_of(model: str) -> tuple[Operation, ...]:
    """The ways to a prediction of one model."""
    text = f"Run model {model} on the body."
    answers = (Answer(200, "What the handler returned."), _FAILED)
    return (
        Operation(method="post", path=f"/prediction/{_literal(model)}", id=model, text=text, answers=answers),
        replace(_PREDICT_V1, id=f"v1_{model}", text=text, takes_body=False, answers=answers),
        replace(_PREDICT_V2, id=f"v2_{model}", text=text, takes_body=False, answers=answers),
    )


def _literal(model: str) -> str:
    """Braces would make a parameter of a name."""
    return model.replace("{", "%7B").replace("}", "%7D")
