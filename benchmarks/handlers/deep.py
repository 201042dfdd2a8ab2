"""The base handler on a network that is mostly weights: a list of numbers to one number."""

from __future__ import annotations

from typing import Any

import torch

from ts.torch_handler.base_handler import BaseHandler


class Deep(BaseHandler):
    def preprocess(self, data: list[dict[str, Any]]) -> torch.Tensor:
        return torch.tensor([row["body"] for row in data])

    def postprocess(self, data: torch.Tensor) -> list[float]:
        numbers: list[float] = data.mean(dim=1).tolist()
        return numbers
