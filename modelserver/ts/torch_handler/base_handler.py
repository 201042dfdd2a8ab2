"""`BaseHandler`: loads a PyTorch model and runs preprocess, inference, postprocess; most handlers derive from it."""

from __future__ import annotations

import abc
import importlib.util
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from packaging import version
from torch.profiler import profile, record_function

from ts.handler_utils.timer import timed
from ts.torch_handler.compilation import compile_model, compile_options
from ts.torch_handler.devices import choose_device, enable_tensor_cores, optimize_for_ipex
from ts.torch_handler.profiling import profiler_arguments, profiling_enabled
from ts.torch_handler.weights import (
    load_aot_library,
    load_eager,
    load_package,
    load_torchscript,
    setup_ort_session,
)
from ts.utils.util import load_label_mapping

logger = logging.getLogger(__name__)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


PROFILER_AVAILABLE = hasattr(torch, "profiler")
PT2_AVAILABLE = hasattr(torch, "compile")
PT230_AVAILABLE = version.parse(torch.__version__) >= version.parse("2.3")
XLA_AVAILABLE = _installed("torch_xla")
IPEX_AVAILABLE = _installed("intel_extension_for_pytorch")
ONNX_AVAILABLE = _installed("onnxruntime")

__all__ = [
    "BaseHandler",
    "IPEX_AVAILABLE",
    "ONNX_AVAILABLE",
    "PROFILER_AVAILABLE",
    "PT230_AVAILABLE",
    "PT2_AVAILABLE",
    "XLA_AVAILABLE",
    "setup_ort_session",
]


class BaseHandler(abc.ABC):
    """Every method may be overridden. Subclasses need not call `__init__`: the initial state is the class's own."""

    model: Any = None
    mapping: dict[str, str] | None = None
    device: Any = None
    initialized: bool = False
    context: Any = None
    model_pt_path: str | None = None
    manifest: Any = None
    map_location: str | None = None
    explain: bool = False
    target: int = 0
    model_yaml_config: Any = None
    profiler_args: dict[str, Any]

    def __init__(self) -> None:
        self.profiler_args = {}

    def initialize(self, context: Any) -> None:
        """Choose the device, load the model and the labels. Raises `RuntimeError` where there is nothing to load."""
        self.model_yaml_config = getattr(context, "model_yaml_config", None)
        properties = context.system_properties
        model_dir = properties["model_dir"]
        self.map_location, self.device = choose_device(properties.get("gpu_id"), self.map_location)
        enable_tensor_cores(self.device)
        self.manifest = context.manifest
        self._load_model(model_dir)
        options = compile_options(self._pt2())
        if options is not None:
            self.model = compile_model(self.model, options)
        else:
            self.model = optimize_for_ipex(self.model, self.device)
        self.mapping = load_label_mapping(str(Path(model_dir, "index_to_name.json")))
        self.initialized = True

    @timed
    def preprocess(self, data: Any) -> Any:
        """The batch as one tensor on the device."""
        return torch.as_tensor(data, device=self.device)

    @timed
    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's output for a batch."""
        with torch.inference_mode():
            return self.model(data.to(self.device), *args, **kwargs)

    @timed
    def postprocess(self, data: Any) -> Any:
        """The output as a list with one element per request."""
        return data.tolist()

    def handle(self, data: Any, context: Any) -> Any:
        """Answer a batch: a prediction, an explanation or a description, as the first request asks."""
        started = time.perf_counter()
        self.context = context
        if self._is_describe():
            output = [self.describe_handle()]
        elif profiling_enabled():
            output, _ = self._infer_with_profiler(data)
        else:
            output = self._answer(data)
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return output

    def explain_handle(self, data_preprocess: Any, raw_data: Any) -> Any:
        """What `get_insights` says about the first row, for the class that the row's `target` names (0 by default)."""
        logger.info("Calculating Explanations")
        row, inputs, target = raw_data[0], None, 0
        if isinstance(row, dict):
            logger.info("Getting data and target")
            inputs = row.get("data") or row.get("body")
            target = _as_number(row.get("target") or 0)
        return self.get_insights(data_preprocess, inputs, target)  # type: ignore[attr-defined]  # subclasses bring it

    def describe_handle(self) -> Any:
        """What describe calls of the management API show; a dict, or None for nothing."""
        return None

    def get_device(self) -> Any:
        """The device of the model."""
        return self.device

    def _answer(self, data: Any, region: Callable[[str], AbstractContextManager[Any]] = nullcontext) -> Any:
        with region("preprocess"):
            batch = self.preprocess(data)
        if self._is_explain():
            with region("explain"):
                return self.explain_handle(batch, data)
        with region("inference"):
            output = self.inference(batch)
        with region("postprocess"):
            return self.postprocess(output)

    def _infer_with_profiler(self, data: Any) -> tuple[Any, Any]:
        """The answer to a batch, and the profiler that watched."""
        if self.manifest is None:
            self.manifest = self.context.manifest
        self.profiler_args = profiler_arguments(getattr(self, "profiler_args", {}), self.manifest)
        with profile(**self.profiler_args) as profiler:
            output = self._answer(data, record_function)
        logger.info(profiler.key_averages().table(sort_by="cpu_time_total", row_limit=10))
        return output, profiler

    def _is_explain(self) -> bool:
        self.explain = self.context is not None and self.context.get_request_header(0, "explain") == "True"
        return self.explain

    def _is_describe(self) -> bool:
        return self.context is not None and self.context.get_request_header(0, "describe") == "True"

    def _load_model(self, model_dir: str) -> None:
        files = self.manifest["model"]
        if "serializedFile" in files:
            self.model_pt_path = str(Path(model_dir, files["serializedFile"]))
        path = self.model_pt_path or ""
        if files.get("modelFile"):
            self.model = self._load_pickled_model(model_dir, files["modelFile"], self.model_pt_path)
            self.model.to(self.device)
            self.model.eval()
        elif path.endswith(".pt"):
            self.model = self._load_torchscript_model(path)
            self.model.eval()
        elif path.endswith(".onnx") and ONNX_AVAILABLE:
            self.model = setup_ort_session(path, self.map_location)
            logger.info("Succesfully setup ort session")
        elif path.endswith(".so") and self._use_torch_export_aot_compile():
            self.model = self._load_torch_export_aot_compile(path)
        elif path.endswith(".pt2") and self._export() is not None:
            self.model = load_package(path, self.device, compiled=self._use_torch_export_aot_compile())
        else:
            raise RuntimeError("No model weights could be loaded")

    def _load_pickled_model(self, model_dir: str, model_file: str, model_pt_path: str | None) -> Any:
        """An eager model; the weights are optional."""
        map_location = None if XLA_AVAILABLE and self.map_location is None else self.device
        return load_eager(model_dir, model_file, model_pt_path, map_location)

    def _load_torchscript_model(self, model_pt_path: str) -> Any:
        return load_torchscript(model_pt_path, self.device)

    def _load_torch_export_aot_compile(self, model_so_path: str) -> Any:
        return load_aot_library(model_so_path, self.device, self.map_location)

    def _use_torch_export_aot_compile(self) -> bool:
        export = self._export()
        return bool(export and export.get("aot_compile")) and PT230_AVAILABLE

    def _export(self) -> Any:
        section = self._pt2()
        return section.get("export") if isinstance(section, dict) else None

    def _pt2(self) -> Any:
        return self.model_yaml_config.get("pt2") if isinstance(self.model_yaml_config, dict) else None


def _as_number(target: Any) -> Any:
    """Form fields come as bytes: ASCII digits with an optional sign become an int, all else stays."""
    if isinstance(target, bytes | bytearray) and target[target[:1] in (b"+", b"-") :].isdigit():
        return int(target)
    return target
