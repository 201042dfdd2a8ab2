"""`BasePippyHandler`: base of handlers that drive a pipeline of stages."""

from __future__ import annotations

import os
from abc import ABC
from typing import Any

import torch

from ts.handler_utils.distributed.pt_pippy import initialize_rpc_workers
from ts.torch_handler.base_handler import BaseHandler


class BasePippyHandler(BaseHandler, ABC):
    """Its device is a number, of the GPU that this rank has."""

    local_rank: int
    world_size: int

    def initialize(self, context: Any) -> None:
        """Join the other ranks; a subclass loads the model. Raises `KeyError` in a process that is no rank."""
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self.world_size = int(os.environ["WORLD_SIZE"])
        self.device = self.local_rank % (torch.cuda.device_count() or 1)
        initialize_rpc_workers(self.local_rank, self.world_size, context)
