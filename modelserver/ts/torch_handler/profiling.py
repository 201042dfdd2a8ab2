"""The torch profiler around a handler's steps."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch

logger = logging.getLogger(__name__)

_OFF = ("", "0", "false", "no", "off")


def profiling_enabled() -> bool:
    """Whether `ENABLE_TORCH_PROFILER` is set to anything but a word for no."""
    return os.environ.get("ENABLE_TORCH_PROFILER", "").lower() not in _OFF


def profiler_arguments(given: dict[str, Any], manifest: dict[str, Any] | None) -> dict[str, Any]:
    """Arguments for `torch.profiler.profile`: those given, else the defaults; a directory of traces for each model."""
    profiler = torch.profiler
    activities = [profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.CUDA]
    arguments = dict(given) if given else {"activities": activities, "record_shapes": True}
    if "on_trace_ready" not in arguments:
        parent = os.environ.get("TORCH_PROFILER_DIR", "/tmp/pytorch_profiler")
        folder = os.path.join(parent, (manifest or {}).get("model", {}).get("modelName", ""))  # noqa: PTH118
        arguments["on_trace_ready"] = profiler.tensorboard_trace_handler(folder)
        logger.info("Saving chrome trace to : %s", folder)
    return arguments
