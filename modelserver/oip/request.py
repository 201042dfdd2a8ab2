"""One inference request, whatever its form was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from modelserver.oip.tensor import Tensor


class Wanted(NamedTuple):
    """An output that the client names; `binary` is None where it does not say."""

    name: str
    binary: bool | None = None


@dataclass(slots=True)
class InferRequest:
    """What the client wants to know. `document` is the JSON object it sent, if it sent one."""

    id: str = ""
    model_name: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: Sequence[Wanted] = ()
    binary_outputs: bool = False  # where an output does not say
    raw: bool = False  # protobuf: the client sent raw contents, and reads no others
    document: dict[str, Any] | None = None
