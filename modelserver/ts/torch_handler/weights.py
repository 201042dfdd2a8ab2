"""Models from files: eager, TorchScript, ONNX, ahead-of-time compiled."""

from __future__ import annotations

import importlib
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ts.model_import import import_from
from ts.torch_handler.records import share_records
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
        take_weights(model, weights, map_location, shared=not Path(model_dir).is_symlink())
    return model


def take_weights(model: Any, path: str, map_location: Any, *, shared: bool) -> None:
    """Give a model its weights; mapped from the file instead of copied if `shared`, and if that makes no difference.

    Processes that map the same file share its pages; where the file may be changed in its place, none must map it.
    """
    if shared and torch.device(map_location or "cpu").type == "cpu" and zipfile.is_zipfile(path):
        weights = torch.load(path, map_location=map_location, mmap=True)
        model.load_state_dict(weights, **({"assign": True} if _can_adopt(model, weights) else {}))
    else:
        model.load_state_dict(torch.load(path, map_location=map_location))


def _can_adopt(model: Any, weights: Any) -> bool:
    """Whether a model may use these very tensors: they are like those that it has, and it has none under two names."""
    if type(model).load_state_dict is not torch.nn.Module.load_state_dict or not isinstance(weights, dict):
        return False
    own = model.state_dict()
    if not (all(map(_loads_plainly, model.modules())) and all(map(_is_plain, [*own.values(), *weights.values()]))):
        return False
    places = [tensor.data_ptr() for tensor in own.values() if tensor.numel()]
    return len(set(places)) == len(places) and all(_alike(weights[name], own[name]) for name in weights if name in own)


def _loads_plainly(module: torch.nn.Module) -> bool:
    own = type(module)._load_from_state_dict
    return own is torch.nn.Module._load_from_state_dict or own.__module__.startswith("torch.nn.modules.")


def _is_plain(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and not is_lazy(tensor) and tensor.layout == torch.strided


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Also as to type and strides, which copying leaves as they are in the model."""
    return (one.dtype, one.shape, one.stride(), one.device) == (other.dtype, other.shape, other.stride(), other.device)


def load_torchscript(path: str, device: Any) -> Any:
    """A TorchScript model, whose weights are mapped from its file where that stays as it is."""
    model = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
    share_weights(model, path, device)
    return model


def share_weights(model: Any, path: str, device: Any) -> None:
    """Map what a model has read from this file, unless it is on a device, or the path leads over a link."""
    links = (place.is_symlink() for place in (Path(path), *Path(path).parents))
    if torch.device(device or "cpu").type == "cpu" and not any(links):
        share_records(model, path)


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
        model = torch.export.load(path).module().to(device)
        share_weights(model, path, device)
        return model
    if not compiled:
        raise RuntimeError(f"{path} is compiled ahead of time: set pt2.export.aot_compile to run it")
    from torch._inductor import aoti_load_package  # heavy, and wanted by few

    return aoti_load_package(path, device_index=device.index if device.type == "cuda" else -1)
