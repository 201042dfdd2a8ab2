"""A request as the JSON object that handlers of TorchServe know."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from modelserver.oip.datatypes import BF16, BYTES, FP32, Array, widen
from modelserver.oip.decimals import shortest
from modelserver.oip.request import InferRequest
from modelserver.oip.tensor import Tensor


def document_of_json(request: InferRequest) -> dict[str, Any]:
    """The object that the client sent, its binary tensors filled in as flat lists, of FP32 the exact values.

    BYTES are text where they are UTF-8, so that a binary request equals one in JSON, else base64.
    """
    document = request.document or {}
    entries = [
        _filled(entry, tensor) if tensor.binary else entry
        for entry, tensor in zip(document.get("inputs", ()), request.inputs, strict=True)
    ]
    return {**document, "inputs": entries}


def document_of_message(request: InferRequest) -> dict[str, Any]:
    """What a `ModelInferRequest` says; BYTES are base64, FP32 the shortest decimals, as TorchServe gives them."""
    document: dict[str, Any] = {"model_name": request.model_name, "id": request.id}
    if request.parameters:
        document["parameters"] = request.parameters
    document["inputs"] = [_entry(tensor) for tensor in request.inputs]
    if request.outputs:
        document["outputs"] = [{"name": output.name} for output in request.outputs]
    return document


def _elements_of(tensor: Tensor) -> list[Any]:
    array = _carried(tensor)
    elements: list[Any] = (shortest(array) if tensor.datatype == FP32 else array).tolist()
    return elements


def _carried(tensor: Tensor) -> Array:
    """The elements of any datatype but BYTES."""
    array = np.asarray(tensor.values)
    return widen(array) if tensor.datatype == BF16 else array


def _filled(entry: dict[str, Any], tensor: Tensor) -> dict[str, Any]:
    values: Any = tensor.values
    data = list(map(_text_or_base64, values)) if tensor.datatype == BYTES else _carried(tensor).tolist()
    return {**entry, "parameters": tensor.parameters, "data": data}


def _entry(tensor: Tensor) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype}
    if tensor.parameters:
        entry["parameters"] = tensor.parameters
    if tensor.values is not None:
        values: Any = tensor.values
        entry["data"] = list(map(_base64, values)) if tensor.datatype == BYTES else _elements_of(tensor)
    return entry


def _text_or_base64(element: bytes) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return _base64(element)


def _base64(element: bytes) -> str:
    return base64.b64encode(element).decode("ascii")
