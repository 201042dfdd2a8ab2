"""Requests as serialized `ModelInferRequest`."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np

from modelserver.oip.datatypes import BOOL, BYTES, CONTENTS, DTYPES, KNOWN, Array
from modelserver.oip.failures import InvalidRequest, shown
from modelserver.oip.raw import read_raw
from modelserver.oip.request import InferRequest, Wanted
from modelserver.oip.tensor import Tensor, Values, check_count, check_dimensions, checked_shape
from modelserver.oip.wire_format import Kind, fields, malformed, packed_varints

# Field of `InferTensorContents` -> wire type of its elements.
_WIRE_TYPES: Final = {
    **dict.fromkeys(range(1, 6), Kind.VARINT),
    6: Kind.FIXED32,
    7: Kind.FIXED64,
    8: Kind.BYTES,
}
_SIGNED: Final = 1 << 63

Contents = dict[int, list[Any]]  # field -> its pieces, packed ones as memoryviews


def read_message(data: bytes, *, lenient: bool = False) -> InferRequest:
    """A request, its raw contents as views of `data`. Raises `InvalidRequest`.

    `lenient` is TorchServe's way: shapes of typed contents are not compared, and unknown datatypes pass without data.
    """
    request = InferRequest()
    inputs: list[_Input] = []
    wanted: list[Wanted] = []
    raw: list[memoryview] = []
    for field in fields(memoryview(data)):
        match field:
            case 1, Kind.BYTES, value:
                request.model_name = _text(value)
            case 3, Kind.BYTES, value:
                request.id = _text(value)
            case 4, Kind.BYTES, value:
                request.parameters.update([_entry(value)])
            case 5, Kind.BYTES, value:
                inputs.append(_Input(value))
            case 6, Kind.BYTES, value:
                wanted.append(_read_wanted(value))
            case 7, Kind.BYTES, value:
                raw.append(value)
    if not lenient:
        for entry in inputs:
            check_dimensions(entry.name, entry.shape)
    request.outputs, request.raw = wanted, bool(raw)
    if raw:
        request.inputs = _with_raw(inputs, raw, lenient=lenient)
    else:
        request.inputs = [entry.typed(lenient=lenient) for entry in inputs]
    return request


class _Input:
    """An `InferInputTensor`."""

    def __init__(self, message: memoryview) -> None:
        self.name = self.datatype = ""
        self.parameters: dict[str, Any] = {}
        self.contents: Contents | None = None
        shape: list[Any] = []
        for field in fields(message):
            match field:
                case 1, Kind.BYTES, value:
                    self.name = _text(value)
                case 2, Kind.BYTES, value:
                    self.datatype = _text(value)
                case 3, Kind.VARINT | Kind.BYTES, value:
                    shape.append(value)
                case 4, Kind.BYTES, value:
                    self.parameters.update([_entry(value)])
                case 5, Kind.BYTES, value:
                    self.contents = _read_contents(value, self.contents or {})
        self.shape = checked_shape(self.name, _varints(shape).astype(np.int64).tolist())
        self.parameters.pop("binary_data_size", None)

    def tensor(self, values: Values | None, *, binary: bool = False) -> Tensor:
        return Tensor(self.name, self.datatype, self.shape, values, self.parameters, binary)

    def typed(self, *, lenient: bool) -> Tensor:
        """With the elements of its contents. Raises `InvalidRequest`."""
        field = CONTENTS.get(self.datatype)
        if field is None:
            if lenient and self.datatype not in DTYPES:
                return self.tensor(None)
            problem = "has no typed contents: send raw_input_contents" if self.datatype in KNOWN else "is unknown"
            raise InvalidRequest(f"input {self.name!r}: datatype {shown(self.datatype)} {problem}")
        values = _values(self.name, self.datatype, (self.contents or {}).get(field, []))
        if not lenient:
            check_count(self.name, self.shape, len(values))
        return self.tensor(values)


def _with_raw(inputs: list[_Input], raw: list[memoryview], *, lenient: bool) -> list[Tensor]:
    if len(raw) != len(inputs):
        text = f"raw_input_contents has {len(raw)} entries for {len(inputs)} inputs"
        raise InvalidRequest(f"{text}: it needs one for each, in the same order")
    tensors = []
    for entry, data in zip(inputs, raw, strict=True):
        if entry.contents is not None:
            raise InvalidRequest(f"input {entry.name!r} has contents, and the request has raw_input_contents")
        known = entry.datatype in KNOWN or not lenient
        values = read_raw(entry.name, entry.datatype, entry.shape, data) if known else None
        tensors.append(entry.tensor(values, binary=True))
    return tensors


def _read_contents(message: memoryview, contents: Contents) -> Contents:
    """Adds to `contents` what the message has: a message that comes twice is one message."""
    for number, kind, value in fields(message):
        if kind in (_WIRE_TYPES.get(number), Kind.BYTES) and number in _WIRE_TYPES:
            contents.setdefault(number, []).append(value)
    return contents


def _values(name: str, datatype: str, pieces: list[Any]) -> Values:
    if datatype == BYTES:
        return [bytes(piece) for piece in pieces]
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        return _floats(dtype, pieces)
    numbers = _varints(pieces)
    if datatype == BOOL:
        return numbers.astype(bool)
    _check_range(name, datatype, dtype, numbers)
    return numbers.astype(dtype)


def _check_range(name: str, datatype: str, dtype: np.dtype[Any], numbers: Array) -> None:
    """The fields have 32 or 64 bits, of which short datatypes use fewer."""
    if dtype.itemsize > 2 or not numbers.size:
        return
    signed = numbers.astype(np.int32) if dtype.kind == "i" else numbers.astype(np.uint32)
    if signed.min() < np.iinfo(dtype).min or signed.max() > np.iinfo(dtype).max:
        odd = signed.min() if signed.min() < np.iinfo(dtype).min else signed.max()
        raise InvalidRequest(f"input {name!r}: contents of {datatype} are out of range: {odd}")


def _floats(dtype: np.dtype[Any], pieces: list[Any]) -> Array:
    if any(len(piece) % dtype.itemsize for piece in pieces):
        raise malformed("packed numbers end in the middle of one")
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return np.frombuffer(data, dtype)


def _varints(pieces: list[Any]) -> Array:
    """The numbers of a repeated field, which may come packed, in several pieces, or one by one."""
    if len(pieces) == 1 and isinstance(pieces[0], memoryview):
        return packed_varints(pieces[0])
    if set(map(type, pieces)) <= {int}:
        return np.array(pieces, np.uint64)
    single = [np.array([piece], np.uint64) if isinstance(piece, int) else packed_varints(piece) for piece in pieces]
    return np.concatenate(single)


def _read_wanted(message: memoryview) -> Wanted:
    name = ""
    for number, kind, value in fields(message):
        if (number, kind) == (1, Kind.BYTES):
            name = _text(value)
    return Wanted(name)


def _entry(message: memoryview) -> tuple[str, Any]:
    """An entry of a map of `InferParameter`."""
    key, parameter = "", None
    for field in fields(message):
        match field:
            case 1, Kind.BYTES, value:
                key = _text(value)
            case 2, Kind.BYTES, value:
                parameter = _parameter(value, parameter)
    return key, parameter


def _parameter(message: memoryview, before: Any) -> Any:
    """The member of an `InferParameter` that counts, the last one; `before` where it has none."""
    found = before
    for field in fields(message):
        match field:
            case 1, Kind.VARINT, value:
                found = bool(value)
            case 2, Kind.VARINT, value:
                found = value - (value >= _SIGNED) * 2 * _SIGNED
            case 3, Kind.BYTES, value:
                found = _text(value)
            case 4, Kind.FIXED64, value:
                (found,) = struct.unpack("<d", value)
            case 5, Kind.VARINT, value:
                found = value
    return found


def _text(value: memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise malformed(f"{shown(bytes(value))} is no UTF-8") from None
