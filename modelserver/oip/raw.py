"""Tensors as bytes: little-endian, row-major, without padding; BYTES elements each behind their length."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from modelserver.oip.datatypes import BOOL, BYTES, DTYPES
from modelserver.oip.failures import InvalidRequest, shown
from modelserver.oip.tensor import Values, check_count, size_of

Buffer = bytes | memoryview
_LENGTH = struct.Struct("<I")


def read_raw(name: str, datatype: str, shape: Sequence[int], data: Buffer) -> Values:
    """The elements, as a view of `data` where that is possible. Raises `InvalidRequest` unless `data` is just them."""
    if datatype == BYTES:
        return _read_elements(name, shape, data)
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidRequest(f"input {name!r}: unknown datatype {shown(datatype)}")
    size = size_of(shape)
    if size is None and len(data) % dtype.itemsize:
        raise InvalidRequest(f"input {name!r}: {len(data)} bytes are no whole elements of {datatype}")
    if size is not None and len(data) != size * dtype.itemsize:
        wanted = f"{shown(size * dtype.itemsize)} bytes for shape {list(shape)} of {datatype}"
        raise InvalidRequest(f"input {name!r}: expected {wanted}, got {len(data)}")
    if datatype == BOOL:
        return np.frombuffer(data, np.uint8).astype(bool)
    return np.frombuffer(data, dtype)


def raw_of(datatype: str, values: Values) -> Buffer:
    """The bytes of elements: of BYTES a list of bytes, of others an array of the datatype's own dtype."""
    if datatype == BYTES:
        return b"".join([piece for element in values for piece in (_LENGTH.pack(len(element)), element)])
    array = np.ascontiguousarray(values, DTYPES[datatype]).reshape(-1)
    return array.view(np.uint8).data if array.size else b""


def _read_elements(name: str, shape: Sequence[int], data: Buffer) -> list[bytes]:
    size = size_of(shape)
    if size is not None and size * _LENGTH.size > len(data):
        check = f"{shown(size)} BYTES elements, which take at least {shown(size * _LENGTH.size)} bytes"
        raise InvalidRequest(f"input {name!r}: shape {list(shape)} needs {check}, got {len(data)}")
    elements: list[bytes] = []
    start, end = 0, len(data)
    while start < end:
        if end - start < _LENGTH.size:
            raise InvalidRequest(f"input {name!r}: {end - start} bytes are left over behind the last BYTES element")
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size + length
        if start > end:
            text = f"BYTES element {len(elements)} has a length of {length} bytes, {start - end} more than there are"
            raise InvalidRequest(f"input {name!r}: {text}")
        elements.append(bytes(data[start - length : start]))
    check_count(name, shape, len(elements))
    return elements
