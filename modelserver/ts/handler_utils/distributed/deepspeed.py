"""DeepSpeed inference engines; the library is imported when one is made."""

from __future__ import annotations

import importlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

_WEIGHTS = (".bin", ".pt", ".pth")


def get_ds_engine(model: Any, ctx: Any) -> Any:
    """The engine that the sections `handler` and `deepspeed` of the model's YAML describe. Raises `ValueError`."""
    section = ctx.model_yaml_config.get("deepspeed")
    if not section:
        raise ValueError(f"{ctx.model_name} has no deepspeed config in model config yaml file")
    model_dir = Path(ctx.system_properties["model_dir"])
    model_path = ctx.model_yaml_config["handler"]["model_path"]
    arguments: dict[str, Any] = {"config": _config(ctx.model_name, model_dir, section)}
    if checkpoint := section.get("checkpoint"):
        arguments["checkpoint"] = str(model_dir / checkpoint)
        create_checkpoints_json(model_path, arguments["checkpoint"])
    logger.info("Before deepspeed init: %s bytes on this device", _allocated())
    engine = importlib.import_module("deepspeed").init_inference(model, **arguments)
    logger.info("After deepspeed init: %s bytes on this device", _allocated())
    return engine


def create_checkpoints_json(model_path: str | Path, checkpoints_json: str | Path) -> None:
    """Write the list of the weight files below a directory in the form that DeepSpeed reads."""
    found = sorted(str(path) for path in Path(model_path).rglob("*") if path.suffix in _WEIGHTS and path.is_file())
    content = {"type": "ds_model", "checkpoints": found, "version": 1.0}
    Path(checkpoints_json).write_text(json.dumps(content), encoding="utf-8")


def _config(model_name: str, model_dir: Path, section: dict[str, Any]) -> str | None:
    name = section.get("config")
    if not name:
        return None
    path = model_dir / name
    if not path.is_file():
        raise ValueError(f"{model_name} has no deepspeed config file {path}")
    return str(path)


def _allocated() -> int:
    return torch.cuda.memory_allocated(int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else 0
