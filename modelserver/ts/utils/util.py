"""Label files, model classes, configuration, and the exception that chooses a response's status."""

from __future__ import annotations

import enum
import functools
import inspect
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import yaml

logger = logging.getLogger(__name__)

# HTML tags and character references.
CLEANUP_REGEX = re.compile(r"<.*?>|&([a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")

_P = ParamSpec("_P")
_R = TypeVar("_R")


class PT2Backend(enum.StrEnum):
    """Backends of `torch.compile` that a model's YAML may name."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    NVFUSER = "nvfuser"
    AOT_NVFUSER = "aot_nvfuser"
    AOT_CUDAGRAPHS = "aot_cudagraphs"
    OFI = "ofi"
    FX2TRT = "fx2trt"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    TORCHXLA_TRACE_ONCE = "torchxla_trace_once"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    HPU_BACKEND = "hpu_backend"


class PredictionException(Exception):
    """Raised by a handler to answer the whole batch with this message and HTTP status."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """The classes defined in (not imported into) a module, by name; only subclasses of `parent_class` if given."""
    classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__]
    return [cls for cls in classes if parent_class is None or issubclass(cls, parent_class)]


def check_valid_pt2_backend(backend: str) -> bool:
    """Whether `backend` is one of `PT2Backend`; logs a warning if not."""
    known = any(backend == member.value for member in PT2Backend)
    if not known:
        logger.warning("%s is not a supported backend", backend)
    return known


def load_label_mapping(mapping_file_path: str | Path) -> dict[str, str] | None:
    """Class index to label, from a JSON object; None (and a warning) if the file is missing.

    A label may be a list, whose last element counts. The key `object_type_names` holds a plain list of labels.
    """
    path = Path(mapping_file_path)
    if not path.is_file():
        logger.warning("'%s' is missing. Inference output will not include class name.", mapping_file_path)
        return None
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise json.JSONDecodeError(f"{path.name}: {error.msg}", error.doc, error.pos) from None
    if not isinstance(mapping, dict):
        raise Exception('index->name JSON mapping should be in "class": "label" format.')
    names = mapping.get("object_type_names")
    if isinstance(names, list):
        mapping = {str(index): name for index, name in enumerate(names)}
    return {key: _label(value) for key, value in mapping.items()}


def _label(value: Any) -> str:
    label = value[-1] if isinstance(value, list) and value else value
    if not isinstance(label, str):
        raise Exception("labels in index->name mapping must be either str or List[str]")
    return label


def map_class_to_label(
    probs: list[Sequence[float]],
    mapping: dict[str, str] | None = None,
    lbl_classes: Sequence[Sequence[int]] | None = None,
) -> list[dict[str, float]]:
    """For each row of `probs`, label to probability in the order of the row.

    `lbl_classes` has the shape of `probs` and names the class of each entry, by default its position. Raises `KeyError`
    for a class without label.
    """
    if not isinstance(probs, list):
        raise Exception("Convert classes to list before doing mapping")
    if mapping is not None and not isinstance(mapping, dict):
        raise Exception("Mapping must be a dict")
    if lbl_classes is None:
        lbl_classes = [range(len(row)) for row in probs]
    return [_name_classes(row, classes, mapping) for row, classes in zip(probs, lbl_classes, strict=False)]


def _name_classes(row: Sequence[float], classes: Iterable[int], mapping: dict[str, str] | None) -> dict[str, float]:
    names = map(str, classes)
    return {
        name if mapping is None else mapping[name]: probability for name, probability in zip(names, row, strict=False)
    }


def get_yaml_config(yaml_file_path: str | Path) -> Any:
    """The content of a YAML file, None if it is empty."""
    with Path(yaml_file_path).open(encoding="utf-8") as file:
        return yaml.safe_load(file)


def deprecated(
    version: str, replacement: str = "", klass: type[Warning] = PendingDeprecationWarning
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Warn on every call that a function goes with `version`, and where it went."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        moved = f" and moved to {replacement}" if replacement else ""
        text = f"{function.__name__} is deprecated in {version}{moved}"

        @functools.wraps(function)
        def warn_and_call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            warnings.warn(text, klass, stacklevel=2)
            return function(*args, **kwargs)

        return warn_and_call

    return decorate
