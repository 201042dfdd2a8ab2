"""Knows Open Inference and does nothing, so that a request costs what its protocol costs."""

from __future__ import annotations

from typing import Any

OUTPUT = {"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}


class Infer:
    def initialize(self, context: Any) -> None:
        """Nothing to load."""

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        return [
            {"id": row["body"]["id"], "model_name": "infer", "model_version": "1.0", "outputs": [OUTPUT]}
            for row in data
        ]
