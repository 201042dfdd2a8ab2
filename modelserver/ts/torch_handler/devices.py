"""Which device a model goes to."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from typing import Any

import torch

logger = logging.getLogger(__name__)


def choose_device(gpu_id: Any, map_location: str | None) -> tuple[str | None, Any]:
    """`(map_location, device)`: the accelerator given to this worker (None for none), else what the machine has."""
    if gpu_id is not None and torch.cuda.is_available():
        return "cuda", torch.device(f"cuda:{gpu_id}")
    if gpu_id is not None and _enabled("TS_IPEX_GPU_ENABLE") and torch.xpu.is_available():
        return "xpu", torch.device(f"xpu:{gpu_id}")
    if gpu_id is not None and torch.backends.mps.is_available():
        return "mps", torch.device("mps")
    if importlib.util.find_spec("torch_xla") is not None:
        return map_location, importlib.import_module("torch_xla.core.xla_model").xla_device()
    return "cpu", torch.device("cpu")


def enable_tensor_cores(device: Any) -> None:
    """Let a GPU that has them multiply float32 matrices on tensor cores, with a little less precision."""
    if getattr(device, "type", "") == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        torch.set_float32_matmul_precision("high")
        logger.info("Enabled tensor cores")


def optimize_for_ipex(model: Any, device: Any) -> Any:
    """The model as Intel's extension rewrites it, if `TS_IPEX_ENABLE` asks for it and the extension is installed."""
    if not _enabled("TS_IPEX_ENABLE") or importlib.util.find_spec("intel_extension_for_pytorch") is None:
        return model
    extension = importlib.import_module("intel_extension_for_pytorch")
    optimized = extension.optimize(model.to(memory_format=torch.channels_last).to(device))
    logger.info("Compiled model with ipex")
    return optimized


def _enabled(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"
