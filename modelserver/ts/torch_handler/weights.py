"""Models from files: eager, TorchScript, ONNX, ahead-of-time compiled."""

from __future__ import annotations

import importlib
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from ts.model_import import import_from
from ts.utils.util import list_classes_from_module

logger = logging.getLogger(__name__)


def load_eager(model_dir: str, model_file: str, weights: str | None, map_location: Any) -> Any:
    """An object of the only class in `model_file`, with its weights if given. Raises `RuntimeError`, `ValueError`."""
    if not (Path(model_dir) / model_file).is_file():
        raise RuntimeError("Missing the model.py file")
    module = import_from(Path(model_dir), model_file.partition(".")[0])
    classes = list_classes_from_module(module) if module else []
    if len(classes) != 1:
        raise ValueError(f"Expected only one class as model definition. {classes}")
    model = classes[0]()
    if weights:
        model.load_state_dict(torch.load(weights, map_location=map_location))
    return model


def setup_ort_session(model_pt_path: str, map_location: str | None) -> Any:
    """An ONNX runtime session, on CUDA if `map_location` says so."""
    runtime = importlib.import_module("onnxruntime")  # an optional package
    cuda = ["CUDAExecutionProvider"] if map_location == "cuda" else []
    options = runtime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    return runtime.InferenceSession(model_pt_path, sess_options=options, providers=[*cuda, "CPUExecutionProvider"])


def load_aot_library(path: str, device: Any, map_location: str | None) -> Any:
    """A library made by ahead-of-time compilation of an exported model."""
    from torch._export import aot_load  # heavy, and wanted by few

    if device.type == "cuda":
        torch.cuda.set_device(device)
    model = aot_load(path, str(map_location))
    logger.warning("torch._export is an experimental feature! Succesfully loaded torch exported model.")
    return model


def load_package(path: str, device: Any, *, compiled: bool) -> Any:
    """A `.pt2` file: an exported model, or the libraries compiled from one, if `compiled` says that they may be run.

    Raises `RuntimeError` for libraries otherwise.
    """
    with zipfile.ZipFile(path) as package:
        holds_libraries = any("/aotinductor/" in name for name in package.namelist())
    if not holds_libraries:
        return torch.export.load(path).module().to(device)
    if not compiled:
        raise RuntimeError(f"{path} is compiled ahead of time: set pt2.export.aot_compile to run it")
    from torch._inductor import aoti_load_package  # heavy, and wanted by few

    return aoti_load_package(path, device_index=device.index if device.type == "cuda" else -1)
