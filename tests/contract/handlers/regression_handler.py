"""A TorchScript model on lists of numbers, in micro-batches, with metrics and a model configuration."""

import torch

from ts.handler_utils.micro_batching import MicroBatching
from ts.handler_utils.timer import timed
from ts.torch_handler.base_handler import BaseHandler


class RegressionHandler(BaseHandler):
    def __init__(self):
        super().__init__()
        self.handle = MicroBatching(self)

    def initialize(self, ctx):
        super().initialize(ctx)
        options = ctx.model_yaml_config["micro_batching"]
        self.handle.micro_batch_size = options["micro_batch_size"]
        self.handle.parallelism = options["parallelism"]
        self.digits = ctx.model_yaml_config["handler"]["digits"]

    @timed
    def preprocess(self, data):
        rows = [row.get("data") or row.get("body") for row in data]
        self.context.metrics.add_counter("RowsSeen", len(rows))
        return torch.tensor(rows, dtype=torch.float32)

    def postprocess(self, data):
        return [{"value": round(value, self.digits), "version": self.manifest["model"]["modelVersion"]}
                for (value,) in data.tolist()]  # fmt: skip

    def describe_handle(self):
        return {"digits": self.digits, "micro_batch_size": self.handle.micro_batch_size}
