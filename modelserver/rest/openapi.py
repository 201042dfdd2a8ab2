"""OpenAPI documents, from the table of operations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from modelserver.rest.open_inference_operations import OPEN_INFERENCE
from modelserver.rest.operation import ANY, Answer, Operation, Parameter
from modelserver.rest.operations import INFERENCE, MANAGEMENT, METRICS, MODEL_MANAGEMENT, predictions_of
from modelserver.rest.render import json_text

_TABLES: Final = {"Inference": INFERENCE, "Management": MANAGEMENT, "Metrics": METRICS}


def describe_port(apis: Iterable[str], version: str, *, open_inference: bool = False) -> bytes:
    """The document of a port that serves these APIs, and where `Inference` is one of them perhaps the whole Open
    Inference Protocol; `version` of the server.
    """
    info = {
        "title": "TorchServe APIs",
        "description": "Serves PyTorch models and manages the models that are served.",
        "version": version,
    }
    operations = [operation for api in apis for operation in _operations(api, open_inference=open_inference)]
    return _document(info, operations)


def _operations(api: str, *, open_inference: bool) -> tuple[Operation, ...]:
    return _TABLES[api] + OPEN_INFERENCE if open_inference and api == "Inference" else _TABLES[api]


def describe_predictions(model: str) -> bytes:
    """The document of one model on an inference port."""
    return _document({"title": f"RESTful API for: {model}", "version": "1.0.0"}, predictions_of(model))


def describe_management(model: str, version: str) -> bytes:
    """The document of one model on a management port; `version` of the server."""
    return _document({"title": f"RESTful Management API for: {model}", "version": version}, MODEL_MANAGEMENT)


def _document(info: dict[str, str], operations: Iterable[Operation]) -> bytes:
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {}).setdefault(operation.method, _operation(operation))
    return json_text({"openapi": "3.0.1", "info": info, "paths": paths})


def _operation(operation: Operation) -> dict[str, Any]:
    body = {"required": True, "content": {ANY: {"schema": {"type": "string", "format": "binary"}}}}
    return {
        "description": operation.text,
        "operationId": operation.id,
        "parameters": [_parameter(parameter) for parameter in operation.parameters],
        "requestBody": body if operation.takes_body else None,
        "responses": {str(answer.status): _answer(answer) for answer in operation.answers},
        "deprecated": operation.deprecated or None,
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    choices = None if parameter.choices is None else list(parameter.choices)
    return {
        "in": parameter.place,
        "name": parameter.name,
        "description": parameter.text,
        "required": parameter.required,
        "schema": {"type": parameter.type, "default": parameter.default, "enum": choices},
    }


def _answer(answer: Answer) -> dict[str, Any]:
    content = None if answer.schema is None else {answer.mime: {"schema": answer.schema}}
    return {"description": answer.text, "content": content}
