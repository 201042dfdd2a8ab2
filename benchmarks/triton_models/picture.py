"""As `handlers/picture.py`, for Triton."""

from __future__ import annotations

from typing import Any

import numpy
import triton_python_backend_utils as triton


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        return [triton.InferenceResponse([triton.Tensor("first", first(request))]) for request in requests]


def first(request: Any) -> Any:
    picture = triton.get_input_tensor_by_name(request, "picture").as_numpy()
    return numpy.array([[picture[0, 0, 0, 0]]], numpy.float32)
