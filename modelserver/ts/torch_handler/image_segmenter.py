"""`ImageSegmenter`: an image in, the class of each of its pixels out."""

from __future__ import annotations

from typing import Any

import torch

from ts.handler_utils.timer import timed
from ts.torch_handler.image_classifier import ImageClassifier
from ts.torch_handler.vision_handler import VisionHandler


class ImageSegmenter(VisionHandler):
    """For models from normalised 224 x 224 RGB images to `{"out": batch x classes x height x width}`."""

    image_processing: Any = ImageClassifier.image_processing

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        """For each image rows of pixels, each pixel as `[class, probability]`."""
        probabilities, classes = torch.softmax(data["out"], dim=1).max(dim=1)
        pixels: list[Any] = torch.stack([classes.type(probabilities.dtype), probabilities], dim=3).tolist()
        return pixels
