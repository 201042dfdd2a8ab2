"""400 MB of weights."""

from __future__ import annotations

import torch

WIDTH = 2048
LAYERS = 25  # of 16 MiB each


class DeepModel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layers(x.repeat(1, WIDTH // x.shape[1]))
        return answer
