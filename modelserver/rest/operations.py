"""The table of operations that the API descriptions list; what a path does stands in the routes of `apps.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from modelserver.rest.operation import (
    ANY,
    BAD,
    ERROR,
    EXPOSITION,
    FAILED,
    MODEL,
    UNKNOWN,
    VERSION,
    Answer,
    Operation,
    Parameter,
    array,
    members,
    typed,
)

_ANYTHING: Final = {"type": "string", "format": "binary"}
_STATUS: Final = members(["status"], status=typed("string", "What was done, or how the server is."))
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

_STARTED: Final = Answer(202, "Accepted; workers come and go behind it.", _STATUS)
_PARTIAL: Final = Answer(210, "Some of the workers asked for are running.", _STATUS)

_IGNORED: Final = "Accepted and ignored."


def _versioned(operation: Operation) -> Operation:
    """The same for a named version instead of the default one."""
    return replace(
        operation,
        path=operation.path + "/{model_version}",
        id=f"version_{operation.id}",
        text=operation.text.replace("the default version of a model", "one version of a model"),
        parameters=(operation.parameters[0], VERSION, *operation.parameters[1:]),
    )


_DESCRIPTION: Final = Operation(
    method="options",
    path="/",
    id="apiDescription",
    text="This document.",
    answers=(Answer(200, "An OpenAPI document.", typed("object")), FAILED),
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
    answers=(Answer(200, "Samples.", typed("string"), EXPOSITION), FAILED),
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
        UNKNOWN,
        FAILED,
        Answer(503, "No worker takes the request, or the handler failed.", ERROR),
    ),
)
# An id stands once in a document, or the document is not valid and generators of clients stumble.
_PREDICT_V1: Final = replace(_PREDICT, path="/v1/models/{model_name}:predict", id="v1_predictions")
PREDICT_V2: Final = replace(_PREDICT, path="/v2/models/{model_name}/infer", id="v2_predictions")

_LIST_MODELS: Final = Operation(
    method="get",
    path="/models",
    id="listModels",
    text="The registered models in the order of their names, page by page.",
    parameters=(
        Parameter("limit", "Models of a page, at most 100.", "integer", 100),
        Parameter("next_page_token", "The token that came with the page before."),
    ),
    answers=(Answer(200, "A page.", _LIST), FAILED),
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
        BAD,
        UNKNOWN,
        Answer(409, "This version is registered already.", ERROR),
        FAILED,
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
        UNKNOWN,
        FAILED,
        Answer(503, "The handler was to be asked: no worker takes the request, or the handler failed.", ERROR),
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
    answers=(Answer(200, "Done.", _STATUS), _STARTED, _PARTIAL, BAD, UNKNOWN, FAILED),
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
        UNKNOWN,
        Answer(408, "Its workers did not end in time.", ERROR),
        FAILED,
    ),
)
_SET_DEFAULT: Final = Operation(
    method="put",
    path="/models/{model_name}/{model_version}/set-default",
    id="setDefault",
    text="Make a version the one that serves where none is named.",
    parameters=(MODEL, VERSION),
    answers=(Answer(200, "Done.", _STATUS), UNKNOWN, FAILED),
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
    PREDICT_V2,
    _PREDICT,
    _versioned(_PREDICT),
    _OLD_DESCRIPTION,
    _SCRAPE,
)
MANAGEMENT: Final = (_DESCRIPTION, _LIST_MODELS, _REGISTER, *MODEL_MANAGEMENT, _OLD_DESCRIPTION, _SCRAPE)


def predictions_of(model: str) -> tuple[Operation, ...]:
    """The ways to a prediction of one model."""
    text = f"Run model {model} on the body."
    answers = (Answer(200, "What the handler returned."), FAILED)
    return (
        Operation(method="post", path=f"/prediction/{_literal(model)}", id=model, text=text, answers=answers),
        replace(_PREDICT_V1, id=f"v1_{model}", text=text, takes_body=False, answers=answers),
        replace(PREDICT_V2, id=f"v2_{model}", text=text, takes_body=False, answers=answers),
    )


def _literal(model: str) -> str:
    """Braces would make a parameter of a name."""
    return model.replace("{", "%7B").replace("}", "%7D")
