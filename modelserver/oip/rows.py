"""The mapping for handlers that know nothing of the protocol: inputs become rows, results become outputs.

The first dimension of every input counts the rows. A model with one input gets it as `body` of each row, one with
several gets each under its name. What is left of an input in a row is an array of numpy, a number, or of BYTES what
came: text in JSON, bytes otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np

from modelserver.oip.datatypes import BF16, BYTES, Array, datatype_of
from modelserver.oip.declaration import fits
from modelserver.oip.failures import InvalidOutput, InvalidRequest
from modelserver.oip.response import NO_ARRAY, carried, compact, objects, plain
from modelserver.oip.tensor import Tensor
from modelserver.wire.frames import OpenInference, TensorSpec

MOST_ROWS: Final = 10_000  # of one request: a row costs far more memory than the element it may be made of
_UNNAMED: Final = "output-0"
_TEXTS: Final = frozenset({str, bytes, bytearray, dict, type(None)})

Row = dict[str, Any]


def rows_of(inputs: Sequence[Tensor], declared: OpenInference) -> list[Row]:
    """Raises `InvalidRequest` where the inputs cannot be cut into rows."""
    columns = [(tensor.name, _rows(tensor)) for tensor in inputs]
    if len(dict(columns)) < len(columns):
        raise InvalidRequest(f"inputs have the same name: {', '.join(repr(name) for name, _ in columns)}")
    count = _row_count(columns)
    if len(declared.inputs or inputs) == 1:
        columns = [("body", array) for _, array in columns]
    return [{name: array[index] for name, array in columns} for index in range(count)]


def outputs_of(results: list[Any], declared: Sequence[TensorSpec]) -> list[Tensor]:
    """The outputs of one request, from a result for each of its rows. Raises `InvalidOutput`."""
    if len(declared) > 1:
        return [_output(spec.name, _column(results, spec.name, index), spec) for index, spec in enumerate(declared)]
    if declared:
        (spec,) = declared
        named = [result[spec.name] for result in results if isinstance(result, dict) and spec.name in result]
        return [_output(spec.name, named if len(named) == len(results) else results, spec)]
    return [_output(_UNNAMED, results, None)]


def _rows(tensor: Tensor) -> Array:
    if not tensor.shape:
        raise InvalidRequest(f"input {tensor.name!r}: the shape needs a first dimension, which counts the rows")
    return tensor.array()


def _row_count(columns: Sequence[tuple[str, Array]]) -> int:
    if not columns:
        raise InvalidRequest("request has no inputs")
    first, count = columns[0][0], len(columns[0][1])
    for name, array in columns:
        if len(array) != count:
            raise InvalidRequest(f"input {name!r} has {len(array)} rows, input {first!r} has {count}")
    if count > MOST_ROWS:
        raise InvalidRequest(f"input {first!r} has {count} rows, at most {MOST_ROWS} are possible")
    return count


def _column(results: list[Any], name: str, index: int) -> list[Any]:
    """One of several outputs: results are objects with names, or sequences in the order of the declaration."""
    try:
        if any(isinstance(result, str | bytes) for result in results):
            raise TypeError("the characters of a text are no outputs")
        return [result[name] if isinstance(result, dict) else result[index] for result in results]
    except (KeyError, IndexError, TypeError):
        raise InvalidOutput(f"handler returned a result without the declared output {name!r}") from None


def _output(name: str, column: list[Any], spec: TensorSpec | None) -> Tensor:
    datatype, array = _declared(name, column, spec) if spec is not None else _found(column)
    shape = array.shape
    if spec is not None and not column:
        shape = (0, *(max(0, dimension) for dimension in spec.shape[1:]))
    if spec is not None and not fits(spec.shape, shape):
        raise InvalidOutput(f"output {name!r}: the model declares shape {list(spec.shape)}, got {list(shape)}")
    if datatype == BYTES:
        return Tensor(name, datatype, shape, list(map(_as_text, array.reshape(-1).tolist())))
    return Tensor(name, datatype, shape, carried(name, datatype, array))


def _declared(name: str, column: list[Any], spec: TensorSpec) -> tuple[str, Array]:
    try:
        results = list(map(plain, column))
        return spec.datatype, objects(results) if spec.datatype == BYTES else np.asarray(results)
    except NO_ARRAY as error:
        raise InvalidOutput(f"output {name!r}: results do not make a tensor: {error}") from None


def _found(column: list[Any]) -> tuple[str, Array]:
    """What undeclared results are: numbers if they all are and have one shape, else BYTES."""
    results = list(map(plain, column))
    if not any(type(result) in _TEXTS for result in results):
        with suppress(*NO_ARRAY):  # of several shapes, most of all
            array = np.asarray(results)
            if (datatype := datatype_of(array)) != BYTES:
                return BF16 if all(map(_is_bfloat16, column)) and column else datatype, array
    return BYTES, objects(results)


def _is_bfloat16(result: Any) -> bool:
    return str(getattr(result, "dtype", "")) == "torch.bfloat16"


def _as_text(element: Any) -> str | bytes:
    """An element of BYTES; what is no text is written as JSON."""
    return element if isinstance(element, str | bytes) else compact(element).decode()
