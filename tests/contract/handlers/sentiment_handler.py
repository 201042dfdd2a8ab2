"""Text classification with a vocabulary file of its own."""

import logging
import os

import torch
import torch.nn.functional as F

from ts.torch_handler.base_handler import BaseHandler
from ts.utils.util import map_class_to_label

logger = logging.getLogger(__name__)


class SentimentHandler(BaseHandler):
    def initialize(self, context):
        super().initialize(context)
        model_dir = context.system_properties.get("model_dir")
        with open(os.path.join(model_dir, "vocabulary.txt"), encoding="utf-8") as f:
            self.vocabulary = {word.strip(): index for index, word in enumerate(f)}
        logger.info("%d words", len(self.vocabulary))

    def preprocess(self, data):
        ids, offsets = [], []
        for row in data:
            text = row.get("data")
            if text is None:
                text = row.get("body")
            if isinstance(text, (bytes, bytearray)):
                text = text.decode("utf-8")
            offsets.append(len(ids))
            ids.extend(self.vocabulary.get(word, 0) for word in text.lower().split())
        return torch.tensor(ids), torch.tensor(offsets)

    def inference(self, data, *args, **kwargs):
        with torch.no_grad():
            return self.model(*data)

    def postprocess(self, data):
        probs = F.softmax(data, dim=1).tolist()
        return map_class_to_label(probs, self.mapping)
