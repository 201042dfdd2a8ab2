"""The network of the digits example: the one class that the archive's model file defines."""

from __future__ import annotations

import torch
from torch import nn


class DigitNet(nn.Module):
    """Scores ten digits from grey 8x8 scans: (N, 1, 8, 8) in 0..1 to (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, scans: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(scans)
        return logits
