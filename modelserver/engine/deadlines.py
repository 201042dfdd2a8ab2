"""When clients stop waiting: a timer wheel of jobs with a deadline, and the one timer that turns it."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Final

from modelserver.engine.job import Job

TICK: Final = 0.01  # seconds; a job expires at most so much after its deadline


class Wheel:
    """Jobs by the tick in which their deadline falls: joining, leaving and expiring cost the same however many wait.

    A job that is over leaves by itself (`Job.leave_wheel`): it knows its tick.
    """

    def __init__(self) -> None:
        self._ticks: dict[int, dict[Job, None]] = {}
        self._order: list[int] = []  # a heap of the keys of `_ticks`

    def add(self, job: Job, deadline: float) -> None:
        """A job that expires at `deadline`, seconds."""
        tick = math.ceil(deadline / TICK)
        jobs = self._ticks.get(tick)
        if jobs is None:
            jobs = self._ticks[tick] = {}
            heapq.heappush(self._order, tick)
        jobs[job] = None
        job.tick = jobs

    def next(self) -> float | None:
        """When the earliest of the jobs expires; None without jobs."""
        while self._order and not self._ticks[self._order[0]]:
            del self._ticks[heapq.heappop(self._order)]
        return self._order[0] * TICK if self._order else None

    def expired(self, now: float) -> list[Job]:
        """Take the jobs out whose deadline has passed, the earliest first."""
        jobs: list[Job] = []
        while self._order and self._order[0] * TICK <= now:
            jobs += self._ticks.pop(heapq.heappop(self._order))
        for job in jobs:
            job.tick = None
        return jobs


class Deadlines:
    """Calls `expire` for every job that is not over at its deadline."""

    def __init__(self, expire: Callable[[Job], None]) -> None:
        self._expire = expire
        self._wheel = Wheel()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf  # when it rings; uvloop's handles do not always know

    def add(self, job: Job, timeout: float) -> None:
        """A job that has `timeout` seconds from now on."""
        deadline = self._loop.time() + timeout
        self._wheel.add(job, deadline)
        if deadline + TICK < self._due:
            self._set_timer()

    def close(self) -> None:
        """Expire no more jobs."""
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._wheel.next()
        self._timer = None if due is None else self._loop.call_at(due, self._turn)
        self._due = math.inf if due is None else due

    def _turn(self) -> None:
        self._timer, self._due = None, math.inf
        for job in self._wheel.expired(self._loop.time()):
            self._expire(job)
        self._set_timer()
