"""`timed`: how long a step of a handler takes, as a metric."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")
_H = TypeVar("_H")


def timed(step: Callable[Concatenate[_H, _P], _R]) -> Callable[Concatenate[_H, _P], _R]:
    """Report the time of a step as gauge `ts_handler_<name>` (ms), if the model's YAML says `handler.profile: true`."""

    @wraps(step)
    def timed_step(handler: _H, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        context = getattr(handler, "context", None)
        if not _profiled(context):
            return step(handler, *args, **kwargs)
        _await_device()
        started = time.perf_counter()
        result = step(handler, *args, **kwargs)
        _await_device()
        milliseconds = (time.perf_counter() - started) * 1000
        context.metrics.add_time(f"ts_handler_{step.__name__}", milliseconds)  # type: ignore[union-attr]
        return result

    return timed_step


def _profiled(context: Any) -> bool:
    config = getattr(context, "model_yaml_config", None)
    section = config.get("handler") if isinstance(config, dict) else None
    return bool(section.get("profile")) if isinstance(section, dict) else False


def _await_device() -> None:
    """Kernels run behind the call that starts them: without this the time of a step would be that of the launch."""
    import torch  # only handlers that profile pay for it

    if torch.cuda.is_available():
        torch.cuda.synchronize()
