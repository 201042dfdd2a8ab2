"""`BaseDeepSpeedHandler`: base of handlers that make a DeepSpeed engine."""

from __future__ import annotations

import os
from abc import ABC
from typing import Any

from ts.torch_handler.base_handler import BaseHandler


class BaseDeepSpeedHandler(BaseHandler, ABC):
    """Its device is a number: the rank of this process on its machine."""

    def initialize(self, context: Any) -> None:
        """Choose the device, nothing else: a subclass loads the model."""
        self.device = int(os.environ.get("LOCAL_RANK", "0"))
