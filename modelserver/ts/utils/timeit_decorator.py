"""`timeit`: prints how long a function takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def timeit(func: Callable[_P, _R]) -> Callable[_P, _R]:
    """Print wall and CPU time of every call."""

    @wraps(func)
    def timed_call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        wall, processor = time.perf_counter(), time.process_time()
        try:
            return func(*args, **kwargs)
        finally:
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            print(f"{func.__name__}: wall time {wall:.6f} s, CPU time {processor:.6f} s")

    return timed_call
