"""Monotonic seconds to the wall-clock texts of log lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_STEP: Final = 0.01  # seconds the wall clock may move against the monotonic one before the offset is taken again
_CACHED: Final = 4096  # stamps kept; four seconds of milliseconds

MILLISECOND: Final = 1_000_000  # ns


@dataclass(frozen=True, slots=True)
class Stamp:
    """One millisecond as lines tell it."""

    date: str  # local time, `2026-11-20T07:22:37,525`
    seconds: str  # since 1970
    milliseconds: str


def nanoseconds(begin: float, end: float) -> int:
    """The time between two moments given in seconds; 0 if the end is missing or comes first."""
    return int((end - begin) * 1e9 + 0.5) if end > begin else 0


class Clock:
    """Two clocks and their distance. Events carry monotonic times, because those never jump."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        localtime: Callable[[float], time.struct_time] = time.localtime,
    ) -> None:
        self.monotonic = monotonic
        self._wall = wall
        self.offset = wall() - monotonic()
        # By `int((moment + offset) * 1000)`. Open, because a call of `stamp` costs as much again as what it does.
        self.stamps: Mapping[int, Stamp] = _Stamps(localtime)

    def resync(self) -> None:
        """Take the offset again if the wall clock was set or the machine slept."""
        offset = self._wall() - self.monotonic()
        if abs(offset - self.offset) > _STEP:
            self.offset = offset

    def now(self) -> float:
        """Wall seconds of the present."""
        return self.monotonic() + self.offset

    def stamp(self, moment: float) -> Stamp:
        """Date and epoch of a monotonic moment."""
        return self.stamps[int((moment + self.offset) * 1000)]

    def date(self, wall: float) -> str:
        """Local time of wall seconds, `2026-11-20T07:22:37,525`."""
        return self.stamps[int(wall * 1000)].date


class _Stamps(dict[int, Stamp]):
    """By epoch milliseconds, made on demand: under load a thousand lines share one."""

    def __init__(self, localtime: Callable[[float], time.struct_time]) -> None:
        super().__init__()
        self._localtime = localtime
        self._second = -1
        self._second_text = ""

    def __missing__(self, milliseconds: int) -> Stamp:
        if len(self) >= _CACHED:
            self.clear()
        second, fraction = divmod(milliseconds, 1000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", self._localtime(second))
        stamp = self[milliseconds] = Stamp(f"{self._second_text},{fraction:03d}", str(second), str(milliseconds))
        return stamp
