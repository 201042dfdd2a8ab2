"""`ObjectDetector`: an image in, boxes with labels out."""

from __future__ import annotations

from typing import Any

from ts.handler_utils.timer import timed
from ts.torch_handler.transforms import Compose, ToRGB, ToTensor
from ts.torch_handler.vision_handler import VisionHandler


class ObjectDetector(VisionHandler):
    """For models from a list of images to a list of `{"boxes", "labels", "scores"}`, as torchvision's detectors are."""

    threshold = 0.5
    image_processing = Compose([ToRGB(), ToTensor()])

    @timed
    def postprocess(self, data: Any) -> list[list[dict[str, Any]]]:
        """For each image the objects whose score reaches `threshold`: `{label: [x1, y1, x2, y2], "score": score}`."""
        return [self._objects(found) for found in data]

    def _objects(self, found: Any) -> list[dict[str, Any]]:
        columns = (found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist())
        return [
            {self._label(number): box, "score": score}
            for box, number, score in zip(*columns, strict=True)
            if score >= self.threshold
        ]

    def _label(self, number: int) -> str:
        return str(number) if self.mapping is None else self.mapping[str(number)]
