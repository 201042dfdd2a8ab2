"""`DALIHandler`: images are decoded and prepared by a DALI pipeline."""

from __future__ import annotations

import importlib
from abc import ABC
from typing import Any

import numpy as np

from ts.handler_utils.preprocess.dali import get_dali_pipeline
from ts.torch_handler.vision_handler import VisionHandler


class DALIHandler(VisionHandler, ABC):
    """Base of the handlers with a pipeline; its input has the name `source`."""

    pipeline: Any = None

    def initialize(self, context: Any) -> None:
        """As in the base class, then the pipeline."""
        super().initialize(context)
        self.pipeline = get_dali_pipeline(context)
        self.pipeline.build()

    def preprocess(self, data: Any) -> Any:
        """The rows' images as one tensor on the device."""
        images = [np.frombuffer(row.get("data") or row.get("body"), dtype=np.uint8) for row in data]
        pytorch = importlib.import_module("nvidia.dali.plugin.pytorch")
        iterator = pytorch.DALIGenericIterator(
            [self.pipeline],
            ["data"],
            last_batch_policy=pytorch.LastBatchPolicy.PARTIAL,
            last_batch_padded=True,
            prepare_first_batch=False,
        )
        size = self.pipeline.max_batch_size
        self.pipeline.feed_input("source", images + [images[-1]] * (size - len(images)))
        return next(iterator)[0]["data"][: len(images)].to(self.device)
