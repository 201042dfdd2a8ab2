"""The image classifier with a preprocessing of its own: grey 8x8 scans instead of 224x224 colour photographs."""

from __future__ import annotations

import numpy
import torch
from PIL import Image

from ts.torch_handler.image_classifier import ImageClassifier

SIDE = 8  # pixels
WHITE = 240  # grey value of full ink: a scan has 16 levels above black, stored 15 apart


def to_scan(image: Image.Image) -> torch.Tensor:
    """Any picture of a light digit on black as the (1, 8, 8) float tensor the network was trained on."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    pixels = numpy.asarray(small, dtype=numpy.float32) / WHITE
    return torch.from_numpy(pixels).clamp(max=1.0).unsqueeze(0)


class DigitClassifier(ImageClassifier):
    """Answers `{"seven": 0.99, ...}`: the three likeliest digits, the likeliest first."""

    image_processing = staticmethod(to_scan)
    topk = 3
