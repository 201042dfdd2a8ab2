"""Pipelines of model stages over RPC; PiPPy is imported when one is made."""

from __future__ import annotations

import importlib
import inspect
import logging
import math
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)


def initialize_rpc_workers(local_rank: int, world_size: int, ctx: Any) -> None:
    """Join the RPC group as `worker<rank>`; rank 0 knows the devices of all. Uses every GPU of the machine in turn."""
    from torch.distributed import rpc

    section = ctx.model_yaml_config["pippy"]
    count = torch.cuda.device_count()
    options = rpc.TensorPipeRpcBackendOptions(
        num_worker_threads=section["num_worker_threads"], rpc_timeout=section["rpc_timeout"]
    )
    if local_rank == 0 and count:
        for rank in range(world_size):
            options.set_device_map(f"worker{rank}", {0: rank % count})
    logger.info("rank %d of %d joins the group", local_rank, world_size)
    join: Any = rpc.init_rpc
    join(f"worker{local_rank}", rank=local_rank, world_size=world_size, rpc_backend_options=options)


def get_pipeline_driver(model: Any, world_size: int, ctx: Any) -> Any:
    """What drives the stages of a model, one on each rank, from rank 0. Raises `AssertionError` for what YAML lacks."""
    config = ctx.model_yaml_config
    section, handler = config.get("pippy") or {}, config.get("handler") or {}
    for key, holder in (("input_names", section), ("model_type", section), ("model_path", handler)):
        assert key in holder, f"Missing '{key}' key in YAML config"
    model_dir = Path(ctx.system_properties["model_dir"])
    index = _index_file(model_dir, handler)
    arguments: dict[str, Any] = {
        "num_ranks": world_size,
        "num_chunks": section.get("chunks", 1),
        "schedule": "FillDrain",
        "concrete_args": _defaults(model, section["input_names"]),
        "split_policy": _split_policy(model, world_size),
        "index_filename": index,
        "checkpoint_prefix": handler.get("checkpoint_prefix"),
    }
    if section["model_type"] == "HF":
        arguments["tracer"] = importlib.import_module("pippy.hf").PiPPyHFTracer()
    pippy = importlib.import_module("pippy")
    model.config.use_cache = False  # the cache would have to travel from stage to stage
    return pippy.all_compile(model, **arguments)


def _index_file(model_dir: Path, handler: dict[str, Any]) -> str | None:
    """The list of weight files, if the configuration names one."""
    name = handler.get("index_filename")
    if name is None:
        return None
    path = model_dir / handler["model_path"] / name
    assert path.is_file(), f"Index file '{path}' not found"
    return str(path)


def _defaults(model: Any, input_names: list[str]) -> dict[str, Any]:
    """The parameters of the model that requests do not bring, with their defaults."""
    parameters = inspect.signature(model.forward).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name not in input_names}


def _split_policy(model: Any, world_size: int) -> Any:
    """Stages of about the same size."""
    size = sum(parameter.numel() for parameter in model.parameters())
    return importlib.import_module("pippy").split_on_size_threshold(math.ceil(size / world_size))
