"""Images as files or as base64 text, of any size and mode."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from ts.torch_handler.base_handler import BaseHandler


class ShapesHandler(BaseHandler):
    def one(self, row):
        image = row.get("data") or row.get("body")
        if isinstance(image, str):
            image = base64.b64decode(image)
        image = Image.open(io.BytesIO(image)).convert("RGB").resize((16, 16), Image.Resampling.NEAREST)
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0).permute(2, 0, 1)

    def preprocess(self, data):
        return torch.stack([self.one(row) for row in data]).to(self.device)

    def postprocess(self, data):
        probabilities = torch.softmax(data, dim=1)
        best, index = probabilities.max(dim=1)
        return [
            {"shape": self.mapping[str(i)], "probability": p}
            for i, p in zip(index.tolist(), best.tolist(), strict=True)
        ]
