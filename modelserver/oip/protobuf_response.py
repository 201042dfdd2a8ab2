"""Responses as serialized `ModelInferResponse`."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from modelserver.oip.datatypes import BF16, BYTES, CONTENTS, Array
from modelserver.oip.raw import Buffer, raw_of
from modelserver.oip.response import InferResponse, array_of, compact, text_of
from modelserver.oip.tensor import Tensor
from modelserver.oip.wire_format import Kind, pack_varints, tag, varint

_UNTYPED: Final = frozenset({"FP16", BF16})  # no field of `InferTensorContents` holds them


def write_message(response: InferResponse, *, raw: bool, quoted: bool = False) -> bytes:
    """`raw`: the client reads raw contents. `quoted`: TorchServe's way, with typed BYTES as JSON text, and numbers with
    a fraction among the parameters as text.
    """
    raw = raw or any(output.datatype in _UNTYPED for output in response.outputs)
    pieces: list[Buffer] = []
    for number, text in ((1, response.model_name), (2, response.model_version), (3, response.id)):
        if text:
            pieces += _field(number, text.encode("utf-8", "replace"))
    pieces += _parameters(4, response.parameters, quoted=quoted)
    for output in response.outputs:
        pieces += _field(5, *_output(output, raw=raw, quoted=quoted))
    if raw:
        for output in response.outputs:
            pieces += _field(6, raw_of(output.datatype, _raw_values(output)))
    return b"".join(pieces)


def _output(output: Tensor, *, raw: bool, quoted: bool) -> list[Buffer]:
    pieces = [*_field(1, output.name.encode("utf-8", "replace")), *_field(2, output.datatype.encode())]
    if output.shape:
        pieces += _field(3, pack_varints(np.array(output.shape, np.int64).view(np.uint64)))
    pieces += _parameters(4, output.parameters, quoted=quoted)
    return pieces if raw else [*pieces, *_field(5, *_contents(output, quoted=quoted))]


def _contents(output: Tensor, *, quoted: bool) -> list[Buffer]:
    if output.datatype == BYTES:
        texts = map(_quoted if quoted else text_of, output.values or ())
        return [piece for text in texts for piece in _field(CONTENTS[BYTES], text)]
    array = array_of(output)
    return _field(CONTENTS[output.datatype], _packed(array)) if array.size else []


def _packed(array: Array) -> Buffer:
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array).view(np.uint8).data
    return pack_varints(array.astype(np.int64).view(np.uint64) if array.dtype.kind == "i" else array.astype(np.uint64))


def _raw_values(output: Tensor) -> Any:
    return list(map(text_of, output.values or ())) if output.datatype == BYTES else array_of(output)


def _quoted(element: Any) -> bytes:
    """JSON text, with its quotes where the element is text."""
    return compact(element.decode("utf-8", "replace") if isinstance(element, bytes | bytearray) else element)


def _parameters(number: int, parameters: dict[str, Any], *, quoted: bool) -> Iterable[Buffer]:
    """A map of `InferParameter`; values of other types are left out."""
    pieces: list[Buffer] = []
    for key, value in parameters.items():
        if choice := _parameter(value, quoted=quoted):
            pieces += _field(number, *_field(1, str(key).encode("utf-8", "replace")), *_field(2, *choice))
    return pieces


def _parameter(value: Any, *, quoted: bool) -> list[Buffer]:
    match value:
        case bool():
            return [tag(1, Kind.VARINT), varint(value)]
        case int() if -(1 << 63) <= value < 1 << 63:
            return [tag(2, Kind.VARINT), varint(value)]
        case str():
            return _field(3, value.encode("utf-8", "replace"))
        case float() if quoted:
            return _field(3, str(value).encode())
        case float():
            return [tag(4, Kind.FIXED64), struct.pack("<d", value)]
    return []


def _field(number: int, *pieces: Buffer) -> list[Buffer]:
    """A field of bytes."""
    return [tag(number, Kind.BYTES), varint(sum(map(len, pieces))), *pieces]
