"""`VisionHandler`: images from requests to one tensor."""

from __future__ import annotations

import base64
import importlib
import io
from abc import ABC
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from PIL import Image

from ts.handler_utils.timer import timed
from ts.torch_handler.base_handler import BaseHandler


class VisionHandler(BaseHandler, ABC):
    """Base of the image handlers; a subclass sets `image_processing`, a callable from a PIL image to a tensor."""

    image_processing: Callable[[Any], Any]

    def initialize(self, context: Any) -> None:
        """As in the base class; `limit_max_image_pixels=false` lifts Pillow's limit on the size of images."""
        super().initialize(context)
        if not context.system_properties.get("limit_max_image_pixels", True):
            Image.MAX_IMAGE_PIXELS = None

    @cached_property
    def ig(self) -> Any:
        """Captum's integrated gradients of the model; imported only for the first explanation."""
        return importlib.import_module("captum.attr").IntegratedGradients(self.model)

    @timed
    def preprocess(self, data: Any) -> Any:
        """Stack the images of the rows: encoded bytes, base64 text of such, or nested lists of floats."""
        images = [self._to_tensor(row.get("data") or row.get("body")) for row in data]
        return torch.stack(images).to(self.device)

    def get_insights(self, tensor_data: Any, _: Any, target: Any = 0) -> Any:
        """Attributions as nested lists of the input's shape, one per row."""
        print("input shape", tensor_data.shape)
        return self.ig.attribute(tensor_data, target=target, n_steps=15).tolist()

    def _to_tensor(self, image: Any) -> Any:
        if isinstance(image, str):
            image = base64.b64decode(image)
        if isinstance(image, bytes | bytearray):
            return self.image_processing(Image.open(io.BytesIO(image)))
        return torch.tensor(image, dtype=torch.float32)
