"""The operations of the Open Inference Protocol, as the API descriptions list them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from modelserver.rest.operation import (
    BAD,
    ERROR,
    FAILED,
    MODEL,
    UNKNOWN,
    VERSION,
    Answer,
    Operation,
    Schema,
    array,
    members,
    typed,
)
from modelserver.rest.operations import PREDICT_V2

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
_DISABLED: Final = Answer(405, "Models cannot be changed here.", ERROR)
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
        parameters=(operation.parameters[0], VERSION, *operation.parameters[1:]),
    )


_EXPLAIN_V2: Final = replace(
    PREDICT_V2,
    path="/v2/models/{model_name}/explain",
    id="v2_explanations",
    text="Let the default version of a model explain what it would say to the body.",
)
_MODEL_METADATA: Final = _question(
    "/v2/models/{model_name}",
    "v2_metadata",
    "Versions of a model, and the tensors that the default version of a model declares.",
    _METADATA,
    UNKNOWN,
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
    UNKNOWN,
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
    UNKNOWN,
    parameters=(MODEL,),
)
_VERSION_STATISTICS: Final = replace(_of_version(_MODEL_STATISTICS), text="The same, of one version of a model.")
_REPOSITORY_INDEX: Final = Operation(
    method="post",
    path="/v2/repository/index",
    id="v2_index",
    text='All registered versions; with the body `{"ready": true}` those that are ready.',
    takes_body=True,
    answers=(Answer(200, "One element per version.", _INDEX), BAD),
)


def _change(verb: str, text: str, done: str) -> Operation:
    """A call of the repository that changes which models are served; it answers with its own name as a member."""
    said = members(["name", verb], name=typed("string"), **{verb: typed("boolean")})
    return Operation(
        method="post",
        path=f"/v2/repository/models/{{model_name}}/{verb}",
        id=f"v2_{verb}",
        text=text,
        parameters=(MODEL,),
        answers=(Answer(200, done, said), UNKNOWN, _DISABLED, FAILED),
    )


_LOAD: Final = _change("load", "Register a model of the model store, and wait for its workers.", "It is ready.")
_UNLOAD: Final = _change("unload", "Unregister all versions of a model.", "It is gone.")

OPEN_INFERENCE: Final = (
    _question("/v2", "v2_server", "Which server this is, and what it knows of the protocol.", _SERVER),
    _question("/v2/health/live", "v2_live", "A sign of life.", members(["live"], live=typed("boolean"))),
    _SERVER_READY,
    _question(
        "/v2/models", "v2_models", "The names of all models.", members(["models"], models=array(typed("string")))
    ),
    *(_MODEL_METADATA, _MODEL_READY, _EXPLAIN_V2),
    *map(_of_version, (_MODEL_METADATA, _MODEL_READY, PREDICT_V2, _EXPLAIN_V2)),
    *(_ALL_STATISTICS, _MODEL_STATISTICS, _VERSION_STATISTICS),
    *(_REPOSITORY_INDEX, _LOAD, _UNLOAD),
)
