"""Fills templates from a folder of extra files."""

import json
import os
from pathlib import Path


class LetterHandler:
    def initialize(self, context):
        model_dir = Path(context.system_properties["model_dir"])
        self.templates = {path.stem: path.read_text() for path in sorted(model_dir.rglob("*.tmpl"))}
        with open(os.path.join(model_dir, "names.json")) as f:
            self.names = json.load(f)

    def handle(self, data, context):
        letters = []
        for row in data:
            order = row["body"]
            name = self.names.get(order["to"], order["to"])
            letters.append(self.templates[order["template"]].format(name=name))
        return letters
