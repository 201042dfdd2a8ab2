"""What an API description says of one operation, and what many operations share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


ERROR: Final = members(
    ["code", "type", "message"],
    code=typed("integer", "The status of the response."),
    type=typed("string", "The kind of error, for programs."),
    message=typed("string", "What went wrong, for people."),
)

FAILED: Final = Answer(500, "The server or a worker failed.", ERROR)
BAD: Final = Answer(400, "The parameters cannot be used.", ERROR)
UNKNOWN: Final = Answer(404, "There is no such model, version or archive.", ERROR)

MODEL: Final = Parameter("model_name", "Name of the model.", place="path", required=True)
VERSION: Final = Parameter("model_version", "Version of the model.", place="path", required=True)
