"""`DenseNetHandler`: a saved tensor in, the model's output as a tensor out; others derive from it."""

from __future__ import annotations

import io
from typing import Any

import torch

from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import list_classes_from_module

__all__ = ["DenseNetHandler", "list_classes_from_module"]


class DenseNetHandler(BaseHandler):
    """Each row holds the bytes of one tensor; the answer holds one tensor for all, so only a batch of one is valid."""

    def preprocess(self, data: Any) -> Any:
        """The tensors of all rows, stacked."""
        rows = [row.get("data") or row.get("body") for row in data]
        return torch.stack([torch.load(io.BytesIO(row), map_location=self.device) for row in rows])

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """The model's output for the stack."""
        with torch.no_grad():
            return self.model(data.to(self.device), *args, **kwargs)

    def postprocess(self, data: Any) -> list[Any]:
        """The output as it is."""
        return [data]
