"""Pads a whole batch to its longest member, and answers each request with a status and headers of its own."""

import torch

from ts.torch_handler.base_handler import BaseHandler


class PaddingHandler(BaseHandler):
    def initialize(self, context):
        self.device = torch.device("cpu")
        self.initialized = True

    def handle(self, data, context):
        sequences = [row.get("body") for row in data]
        good = [isinstance(each, list) and all(isinstance(x, (int, float)) for x in each) for each in sequences]
        longest = max((len(each) for each, ok in zip(sequences, good, strict=True) if ok), default=0)
        batch = torch.zeros(len(data), longest)
        for index, (each, ok) in enumerate(zip(sequences, good, strict=True)):
            if ok:
                batch[index, : len(each)] = torch.tensor(each, dtype=torch.float32)
        sums = batch.sum(dim=1).tolist()
        results = []
        for index, ok in enumerate(good):
            context.set_response_header(index, "x-batch-size", str(len(data)))
            if ok:
                context.set_response_content_type(index, "application/json")
                results.append({"sum": sums[index], "longest": longest})
            else:
                context.set_response_content_type(index, "text/plain")
                context.set_response_status(code=422, phrase="Not a list", idx=index)
                results.append("not a list of numbers")
        return results
