"""Sequence classification with transformers: the tokenizer and the model lie in the archive."""

import json
import logging
import os
from abc import ABC

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ts.torch_handler.base_handler import BaseHandler

logger = logging.getLogger(__name__)


class TransformersSeqClassifierHandler(BaseHandler, ABC):
    def __init__(self):
        super().__init__()
        self.initialized = False

    def initialize(self, ctx):
        self.manifest = ctx.manifest
        properties = ctx.system_properties
        model_dir = properties.get("model_dir")
        self.device = torch.device(
            "cuda:" + str(properties.get("gpu_id"))
            if torch.cuda.is_available() and properties.get("gpu_id") is not None
            else "cpu"
        )
        setup_config_path = os.path.join(model_dir, "setup_config.json")
        with open(setup_config_path) as setup_config_file:
            self.setup_config = json.load(setup_config_file)
        self.tokenizer = AutoTokenizer.from_pretrained(model_dir)
        self.model = AutoModelForSequenceClassification.from_pretrained(model_dir)
        self.model.to(self.device)
        self.model.eval()
        with open(os.path.join(model_dir, "index_to_name.json")) as f:
            self.mapping = json.load(f)
        logger.info("Transformer model from path %s loaded successfully", model_dir)
        self.initialized = True

    def preprocess(self, requests):
        texts = []
        for data in requests:
            input_text = data.get("data")
            if input_text is None:
                input_text = data.get("body")
            if isinstance(input_text, (bytes, bytearray)):
                input_text = input_text.decode("utf-8")
            texts.append(input_text)
        return self.tokenizer(
            texts,
            max_length=int(self.setup_config["max_length"]),
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).to(self.device)

    def inference(self, input_batch):
        with torch.inference_mode():
            logits = self.model(**input_batch).logits
        return [
            {"label": self.mapping[str(int(row.argmax()))], "scores": torch.softmax(row, 0).tolist()} for row in logits
        ]

    def postprocess(self, inference_output):
        return inference_output
