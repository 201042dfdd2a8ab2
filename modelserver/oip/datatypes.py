"""The datatypes of the protocol, and what carries their elements in numpy."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BOOL, FP32, BF16, BYTES = "BOOL", "FP32", "BF16", "BYTES"

# Little-endian, as on the wire. numpy has no bfloat16: its bits travel as unsigned integers.
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
        "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BF16": "<u2",
    }.items()
}  # fmt: skip

# Field of `InferTensorContents` that has the elements of a datatype; FP16 and BF16 have none.
CONTENTS: Final = {
    "BOOL": 1, "INT8": 2, "INT16": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT16": 4, "UINT32": 4, "UINT64": 5,
    "FP32": 6, "FP64": 7, "BYTES": 8,
}  # fmt: skip
KNOWN: Final = frozenset((*DTYPES, BYTES))
_NAMES: Final = {(dtype.kind, dtype.itemsize): name for name, dtype in DTYPES.items() if name != BF16}
_QUIET_BIT: Final = 0x0040  # of a bfloat16


def datatype_of(array: Array) -> str:
    """What an array is in the protocol; BYTES for text and objects."""
    return _NAMES.get((array.dtype.kind, array.dtype.itemsize), BYTES)


def widen(bits: Array) -> Array:
    """bfloat16 bits as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow(numbers: Array) -> Array:
    """float32 as bfloat16 bits, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    truncated = ((bits >> 16) | _QUIET_BIT).astype(np.uint16)  # rounding would make infinities of some NaN
    return np.where(np.isnan(bits.view(np.float32)), truncated, rounded)
