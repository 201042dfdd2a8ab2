"""`torch.compile`, as the section `pt2` of a model's YAML asks for it."""

from __future__ import annotations

import importlib
import logging
from typing import Any

import torch

from ts.utils.util import check_valid_pt2_backend

logger = logging.getLogger(__name__)

# Backends that exist only once the package that brings them is imported.
_PACKAGES = {"openvino": "openvino.torch", "tensorrt": "torch_tensorrt"}


def compile_options(pt2: Any) -> dict[str, Any] | None:
    """Arguments for `torch.compile`, None if the section asks for no compilation. Raises `ValueError`."""
    if pt2 is None:
        return None
    if isinstance(pt2, dict) and "compile" in pt2:
        options = dict(pt2["compile"] or {})
        return options if options.pop("enable", False) else None
    if isinstance(pt2, dict) and "export" in pt2:
        return None
    if not isinstance(pt2, str | dict):
        raise ValueError("pt2 should be str or dict")
    logger.warning("This form of pt2 is deprecated: use pt2: {compile: {enable: true, backend: <name>}}")
    return {"backend": pt2} if isinstance(pt2, str) else dict(pt2)


def compile_model(model: Any, options: dict[str, Any]) -> Any:
    """The compiled model; the model itself where that is not possible, which the log tells."""
    backend = options.get("backend")
    if backend is not None and not check_valid_pt2_backend(backend):
        return model
    text = ", ".join(f"{name} {value}" for name, value in options.items())
    try:
        if backend in _PACKAGES:
            importlib.import_module(_PACKAGES[backend])
        compiled = torch.compile(model, **options)
    except Exception as error:
        logger.warning("Compiling model model with %s has failed \n Proceeding without compilation", text)
        logger.warning(error)
        return model
    logger.info("Compiled model with %s", text)
    return compiled
