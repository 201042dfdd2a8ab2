"""One tensor of a request or response, its elements not yet or no longer in a client's form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from modelserver.oip.datatypes import BF16, BYTES, DTYPES, Array, widen
from modelserver.oip.failures import InvalidRequest, shown

MOST_DIMENSIONS: Final = 32
_LARGEST: Final = 2**63 - 1

Values = Array | list[Any]  # a flat array; of BYTES a list of bytes and str


@dataclass(slots=True)
class Tensor:
    """Elements in row-major order; `values` is None for an input of an unknown datatype."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values | None
    parameters: dict[str, Any] = field(default_factory=dict)
    binary: bool = False  # its elements came as bytes of the tensor, not as JSON or typed contents

    @property
    def size(self) -> int | None:
        """Elements that the shape asks for; None if a dimension is left open."""
        return size_of(self.shape)

    def array(self) -> Array:
        """An array of the shape, writable and aligned; bfloat16 as float32, BYTES as objects.

        Raises `InvalidRequest` where the elements do not fill the shape.
        """
        if self.values is None:
            raise InvalidRequest(f"input {self.name!r}: unknown datatype {shown(self.datatype)}")
        if self.datatype == BYTES:
            flat = np.empty(len(self.values), object)
            flat[:] = self.values
        else:
            flat = np.asarray(self.values)
            flat = widen(flat) if self.datatype == BF16 else flat
            if not (flat.flags.writeable and flat.flags.aligned):
                flat = flat.copy()
        try:
            return flat.reshape(self.shape)
        except ValueError:
            text = f"input {self.name!r}: {flat.size} elements do not fill the shape {list(self.shape)}"
            raise InvalidRequest(text) from None


def size_of(shape: Sequence[int]) -> int | None:
    """Elements of a shape; None if a dimension is left open."""
    return None if min(shape, default=0) < 0 else math.prod(shape)


def checked_shape(name: str, shape: object) -> tuple[int, ...]:
    """A shape that arrays can have. Raises `InvalidRequest`."""
    if not isinstance(shape, list | tuple) or not set(map(type, shape)) <= {int}:
        raise InvalidRequest(f"input {name!r}: shape must be a list of integers, got {shown(shape)}")
    if len(shape) > MOST_DIMENSIONS:
        raise InvalidRequest(f"input {name!r}: shape has {len(shape)} dimensions, more than {MOST_DIMENSIONS}")
    if shape and not -_LARGEST <= min(shape) <= max(shape) <= _LARGEST:
        raise InvalidRequest(f"input {name!r}: shape {shown(list(shape))} has a dimension beyond 64 bits")
    return tuple(shape)


def check_dimensions(name: str, shape: Sequence[int]) -> None:
    """Raises `InvalidRequest` for a dimension below -1, which leaves it open."""
    if min(shape, default=0) < -1:
        raise InvalidRequest(f"input {name!r}: shape {list(shape)} has a negative dimension")


def check_count(name: str, shape: Sequence[int], count: int) -> None:
    """Raises `InvalidRequest` unless the shape asks for so many elements, or leaves that open."""
    size = size_of(shape)
    if size is not None and size != count:
        raise InvalidRequest(f"input {name!r}: shape {list(shape)} needs {_elements(size)}, got {count}")


def element_size(datatype: str) -> int:
    """Bytes of an element of any datatype but BYTES."""
    return DTYPES[datatype].itemsize


def _elements(count: int) -> str:
    return "1 element" if count == 1 else f"{shown(count)} elements"
