"""`ImageClassifier`: an image in, the most probable classes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ts.handler_utils.timer import timed
from ts.torch_handler.transforms import CenterCrop, Compose, Normalize, Resize, ToRGB, ToTensor
from ts.torch_handler.vision_handler import VisionHandler
from ts.utils.util import map_class_to_label


class ImageClassifier(VisionHandler):
    """For models from normalised 224 x 224 RGB images to class scores; answers `{label: probability}`, best first."""

    topk = 5
    image_processing: Callable[[Any], Any] = Compose(
        [
            ToRGB(),  # here and not in `preprocess`: a subclass with its own transforms may want grey images
            Resize(256),
            CenterCrop(224),
            ToTensor(),
            Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )

    def set_max_result_classes(self, topk: int) -> None:
        """Answer with this many classes."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """How many classes an answer has."""
        return self.topk

    @timed
    def postprocess(self, data: Any) -> list[dict[str, float]]:
        """`data` is batch x classes, before softmax. Raises `RuntimeError` for fewer classes than `topk`."""
        probabilities, classes = torch.topk(torch.softmax(data, dim=1), self.topk, dim=1)
        return map_class_to_label(probabilities.tolist(), self.mapping, classes.tolist())
