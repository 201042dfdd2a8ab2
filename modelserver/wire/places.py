"""Where large bodies lie in memory that frontend and worker share: the arithmetic alone, no memory.

Each way has an area of its own. The bodies of one frame lie in it one after another from its beginning; the frame says
where. Who writes an area writes it only when everything that lay there has been copied out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

# Bytes: of a frame whose bodies are worth laying aside, and of each of these. Laying aside costs 9 us a batch and 2 us
# a body, there and back; what it saves are system calls and copies, which come with every 64 kB. One body of 32 kB took
# a third longer, four took a fifth less time, 16 half of it; 16 of 8 kB as long.
WORTH_SHARING: Final = 1 << 16
SHARED_FROM: Final = 1 << 14
AREA: Final = 64 << 20  # bytes each way: what does not fit travels in its frame
_LINE: Final = 64  # bytes of a line of the processor's cache


# One that may be laid aside: item (position of the request in its batch, or of the reply in its list), part of the
# request (0 in a reply), size in bytes. A plain tuple: one with names costs ten times as much to make.
Body = tuple[int, int, int]


class Place(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where one body lies."""

    item: int  # as in a body
    part: int
    start: int  # bytes from the beginning of the area
    size: int  # bytes


class Misplaced(ValueError):
    """Places that overlap, or lead out of the area."""


def large_ones(bodies: Iterable[Body]) -> list[Body]:
    """Those that are worth laying aside."""
    large = [body for body in bodies if body[2] >= SHARED_FROM]
    return large if sum([size for _, _, size in large]) >= WORTH_SHARING else []


def room_for(bodies: Iterable[Body]) -> int:
    """Bytes of an area in which all of them have their places, at most `AREA`."""
    return min(sum([_aligned(size) for _, _, size in bodies]), AREA)


def lay_out(bodies: Iterable[Body], room: int) -> list[Place]:
    """Places for as many of them as fit into `room` bytes."""
    places: list[Place] = []
    start = 0
    for item, part, size in bodies:
        if start + size <= room:
            places.append(Place(item, part, start, size))
            start += _aligned(size)
    return places


def check_places(places: Sequence[Place], room: int) -> None:
    """Raises `Misplaced` unless they lie one behind the other within `room` bytes, and belong to different bodies."""
    end = 0
    for place in places:
        if place.start < end or place.size < 1 or place.start + place.size > room:
            raise Misplaced(f"a body of {place.size} bytes at {place.start}, but {end} to {room} are free")
        end = place.start + place.size
    if len({(place.item, place.part) for place in places}) < len(places):
        raise Misplaced("two places for one body")


def _aligned(size: int) -> int:
    return size + -size % _LINE
