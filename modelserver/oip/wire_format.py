"""The protobuf encoding: fields of a message, and packed numbers as arrays.

Written by hand because a model's own environment need not have protobuf, and because numpy reads packed fields at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from modelserver.oip.datatypes import Array
from modelserver.oip.failures import InvalidRequest


class Kind:
    """Wire types; plain numbers, because comparing members of an enumeration takes many times as long."""

    VARINT: Final = 0
    FIXED64: Final = 1
    BYTES: Final = 2  # and text, messages, packed numbers
    GROUP: Final = 3
    END_GROUP: Final = 4
    FIXED32: Final = 5


Field = tuple[int, int, Any]  # number, wire type, value: an int or a memoryview
_SHORT: Final = [bytes([number]) for number in range(0x80)]
_MASK: Final = (1 << 64) - 1
_LONGEST: Final = 10  # bytes of a varint
_DEEPEST: Final = 100  # groups within each other
_BLOCK: Final = 1 << 16  # bytes of packed varints that are taken apart at a time, to bound what that needs


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of a message, in order; those of groups, which nothing uses any more, are skipped.

    Raises `InvalidRequest`.
    """
    position, end = 0, len(data)
    groups: list[int] = []
    while position < end:
        key, position = read_varint(data, position)
        number, kind = key >> 3 & 0x1FFFFFFF, key & 7
        if not number or key >> 32:
            raise malformed("a field has no valid number")
        value: Any = None
        if kind == Kind.VARINT:
            value, position = read_varint(data, position)
        elif kind in (Kind.GROUP, Kind.END_GROUP):
            _enter_or_leave(groups, number, kind)
            continue
        else:
            start, position = _bounds(kind, data, position)
            value = data[start:position]
        if not groups:
            yield number, kind, value
    if groups:
        raise malformed("a group has no end")


def _enter_or_leave(groups: list[int], number: int, kind: int) -> None:
    if kind == Kind.GROUP:
        groups.append(number)
        if len(groups) > _DEEPEST:
            raise malformed("groups are nested too deeply")
    elif not groups or groups.pop() != number:
        raise malformed("a group ends that has not begun")


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where the next thing begins. Raises `InvalidRequest`."""
    if position < len(data) and data[position] < 0x80:
        return data[position], position + 1
    number = shift = 0
    for byte in data[position : position + _LONGEST]:
        number |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return number & _MASK, position
        shift += 7
    raise malformed("a number has no end")


def packed_varints(data: memoryview) -> Array:
    """Packed numbers of variable length, as uint64. Raises `InvalidRequest`."""
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    if octets.size and (not ends.size or ends[-1] != octets.size - 1):
        raise malformed("a number has no end")
    if ends.size == octets.size:  # all are small
        return octets.astype(np.uint64)
    numbers = np.empty(ends.size, np.uint64)
    first = start = 0
    while first < ends.size:
        last = max(first + 1, int(np.searchsorted(ends, start + _BLOCK)))
        stop = int(ends[last - 1]) + 1
        numbers[first:last] = _join(octets[start:stop], ends[first:last] - start)
        first, start = last, stop
    return numbers


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers as their 64 bits."""
    if 0 <= number < 0x80:
        return _SHORT[number]
    number &= _MASK
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def pack_varints(numbers: Array) -> memoryview:
    """uint64 as packed numbers of variable length."""
    if not numbers.size or numbers.max() < 0x80:
        return numbers.astype(np.uint8).data
    lengths = np.ones(numbers.size, np.int64)
    for place in range(1, _LONGEST):
        lengths += numbers >= np.uint64(1 << 7 * place)
    starts = np.cumsum(lengths) - lengths
    packed = np.empty(int(lengths.sum()), np.uint8)
    for place in range(_LONGEST):
        chosen = np.flatnonzero(lengths > place)
        if not chosen.size:
            break
        septets = (numbers[chosen] >> np.uint64(7 * place)).astype(np.uint8) & 0x7F
        packed[starts[chosen] + place] = septets | ((lengths[chosen] > place + 1).astype(np.uint8) << 7)
    return packed.data


def tag(number: int, kind: int) -> bytes:
    """What stands before a field."""
    return varint(number << 3 | kind)


def malformed(reason: str) -> InvalidRequest:
    """A message that is none."""
    return InvalidRequest(f"The request message is malformed: {reason}")


def _bounds(kind: int, data: memoryview, position: int) -> tuple[int, int]:
    if kind == Kind.BYTES:
        size, position = read_varint(data, position)
    elif kind in (Kind.FIXED32, Kind.FIXED64):
        size = 4 if kind == Kind.FIXED32 else 8
    else:
        raise malformed(f"a field has the unknown wire type {kind}")
    if size > len(data) - position:
        raise malformed(f"a field of {size} bytes is longer than what holds it")
    return position, position + size


def _join(octets: Array, ends: Array) -> Array:
    """The numbers whose last bytes stand at `ends`."""
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise malformed("a number has no end")
    places = np.arange(octets.size) - np.repeat(starts, lengths)
    septets = (octets & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
    joined: Array = np.bitwise_or.reduceat(septets, starts)
    return joined
