"""Takes pictures as tensors and looks at one number of each, so that a request costs what it takes to carry them."""

from __future__ import annotations

from typing import Any


class Picture:
    def initialize(self, context: Any) -> None:
        """Nothing to load."""

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[float]:
        return [float(row["body"][0, 0, 0]) for row in data]
