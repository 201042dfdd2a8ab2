"""Answers the length of the body, so that a request costs what it takes to carry the body to a worker."""

from __future__ import annotations

from typing import Any


class Length:
    def initialize(self, context: Any) -> None:
        """Nothing to load."""

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        return [str(len(row["body"])) for row in data]
