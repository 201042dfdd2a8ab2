"""Requests in JSON, alone or in front of binary tensors."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from msgspec import MsgspecError
from msgspec.json import Decoder

from modelserver.oip.datatypes import BF16, BOOL, BYTES, DTYPES, KNOWN, Array, narrow
from modelserver.oip.failures import InvalidRequest, shown
from modelserver.oip.raw import read_raw
from modelserver.oip.request import InferRequest, Wanted
from modelserver.oip.tensor import Tensor, Values, check_count, check_dimensions, checked_shape

_fast_json = Decoder().decode


class _Accepted(NamedTuple):
    types: frozenset[type]
    plural: str


_INTEGERS = _Accepted(frozenset({int}), "integers")
_NUMBERS = _Accepted(frozenset({int, float}), "numbers")
_ACCEPTED = {
    BOOL: _Accepted(frozenset({bool, int}), "true or false"),
    BYTES: _Accepted(frozenset({str}), "strings"),
    **dict.fromkeys(("FP16", "FP32", "FP64", BF16), _NUMBERS),
}


def split_body(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON object of a body, and the tensors behind it. Raises `InvalidRequest`.

    `header_length` is the value of Inference-Header-Content-Length; without it all of the body is JSON.
    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    view = memoryview(body)
    return read_object(bytes(view[:length]) if length < len(body) else body), view[length:]


def read_object(text: bytes | bytearray | str) -> dict[str, Any]:
    """Raises `InvalidRequest` for anything but a JSON object."""
    try:
        value = _read_json_text(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"request is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"request must be a JSON object, got {shown(value)}")
    return value


def _read_json_text(text: bytes | bytearray | str) -> Any:
    try:
        return _fast_json(text)
    except (MsgspecError, ValueError, RecursionError):  # NaN, which only the slow way takes, or no JSON at all
        return json.loads(text)


def read_request(document: dict[str, Any], tail: memoryview) -> InferRequest:
    """A request, with the binary tensors in `tail`. Raises `InvalidRequest`."""
    inputs = document.get("inputs")
    if not isinstance(inputs, list):
        raise InvalidRequest("request has no list 'inputs'")
    tensors = []
    for index, entry in enumerate(inputs):
        tensor, size = _read_input(index, entry, tail)
        tensors.append(tensor)
        tail = tail[size:]
    if tail:
        raise InvalidRequest(f"{len(tail)} bytes are left over behind the last binary input")
    outputs, binary = wanted_outputs(document)
    id, parameters = document.get("id"), _parameters("request", document)
    name = document.get("model_name")
    return InferRequest(
        "" if id is None else str(id), name if isinstance(name, str) else "", parameters, tensors, outputs, binary,
        document=document,
    )  # fmt: skip


def wanted_outputs(document: dict[str, Any]) -> tuple[list[Wanted], bool]:
    """The outputs that a request names, and whether those that do not say are wanted as bytes.

    Raises `InvalidRequest`.
    """
    entries = document.get("outputs")
    if not isinstance(entries, list | None):
        raise InvalidRequest(f"request: outputs must be a list, got {shown(entries)}")
    default = _flag("request", _parameters("request", document), "binary_data_output")
    return [_wanted(index, entry) for index, entry in enumerate(entries or ())], bool(default)


def _length(header: str, limit: int) -> int:
    name = "Inference-Header-Content-Length"
    if not (header.isascii() and header.isdigit()) or len(header) > 19:
        raise InvalidRequest(f"{name} must be a number of bytes, got {shown(header)}")
    if int(header) > limit:
        raise InvalidRequest(f"{name} is {int(header)}, but the body has only {limit} bytes")
    return int(header)


def _read_input(index: int, entry: Any, tail: memoryview) -> tuple[Tensor, int]:
    """An input, and how many bytes of `tail` it takes."""
    if not isinstance(entry, dict):
        raise InvalidRequest(f"input {index} must be an object, got {shown(entry)}")
    name, datatype = entry.get("name"), entry.get("datatype")
    if not isinstance(name, str):
        raise InvalidRequest(f"input {index} has no name")
    if not isinstance(datatype, str):
        raise InvalidRequest(f"input {name!r} has no datatype")
    shape = checked_shape(name, entry.get("shape"))
    check_dimensions(name, shape)
    parameters = _parameters(f"input {name!r}", entry)
    if "binary_data_size" not in parameters:
        return Tensor(name, datatype, shape, _read_json(name, datatype, shape, entry), parameters), 0
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise InvalidRequest(f"input {name!r}: binary_data_size must be a number of bytes, got {shown(size)}")
    if size > len(tail):
        raise InvalidRequest(f"input {name!r}: binary_data_size is {shown(size)}, but only {len(tail)} bytes are left")
    kept = {key: value for key, value in parameters.items() if key != "binary_data_size"}
    return Tensor(name, datatype, shape, read_raw(name, datatype, shape, tail[:size]), kept, binary=True), size


def _read_json(name: str, datatype: str, shape: tuple[int, ...], entry: dict[str, Any]) -> Values | None:
    if "data" not in entry:
        raise InvalidRequest(f"input {name!r} has neither 'data' nor the parameter 'binary_data_size'")
    if datatype not in KNOWN:
        return None
    elements = _flatten(name, entry["data"])
    check_count(name, shape, len(elements))
    accepted = _ACCEPTED.get(datatype, _INTEGERS)
    if not set(map(type, elements)) <= accepted.types:
        odd = next(element for element in elements if type(element) not in accepted.types)
        raise InvalidRequest(f"input {name!r}: data of {datatype} must be {accepted.plural}, got {shown(odd)}")
    return elements if datatype == BYTES else _numbers(name, datatype, elements)


def _flatten(name: str, data: Any) -> list[Any]:
    """One list of the elements of nested ones. (numpy would make text of numbers that stand beside text.)"""
    elements = data if isinstance(data, list) else [data]
    while elements and type(elements[0]) is list:
        if set(map(type, elements)) != {list} or len(set(map(len, elements))) > 1:
            raise InvalidRequest(f"input {name!r}: lists of one level of data differ in length")
        elements = list(chain.from_iterable(elements))
    return elements


def _numbers(name: str, datatype: str, elements: list[Any]) -> Array:
    dtype = DTYPES[datatype]
    try:
        if dtype.kind == "f" or datatype == BF16:
            return _floats(datatype, np.array(elements, np.float64))
        numbers = np.array(elements, np.uint64 if min(elements, default=0) >= 0 else np.int64)
    except OverflowError as error:
        raise InvalidRequest(f"input {name!r}: data of {datatype} are out of range: {error}") from None
    lowest, highest = (0, 1) if datatype == BOOL else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if numbers.size and not (lowest <= int(numbers.min()) and int(numbers.max()) <= highest):
        odd = next(element for element in elements if not lowest <= element <= highest)
        raise InvalidRequest(f"input {name!r}: data of {datatype} are out of range: {shown(odd)}")
    return numbers.astype(dtype)


def _floats(datatype: str, numbers: Array) -> Array:
    """What is too large for the datatype is infinite, as everywhere in floating-point numbers."""
    if datatype == "FP64":
        return numbers
    with np.errstate(over="ignore"):
        return narrow(numbers.astype(np.float32)) if datatype == BF16 else numbers.astype(DTYPES[datatype])


def _wanted(index: int, entry: Any) -> Wanted:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InvalidRequest(f"output {index} has no name")
    name = entry["name"]
    return Wanted(name, _flag(f"output {name!r}", _parameters(f"output {name!r}", entry), "binary_data"))


def _parameters(place: str, members: dict[str, Any]) -> dict[str, Any]:
    value = members.get("parameters")
    if not isinstance(value, dict | None):
        raise InvalidRequest(f"{place}: parameters must be an object, got {shown(value)}")
    return value or {}


def _flag(place: str, parameters: dict[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if not isinstance(value, bool | None):
        raise InvalidRequest(f"{place}: {name} must be true or false, got {shown(value)}")
    return value
