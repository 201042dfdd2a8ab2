"""A handler that does nothing, so that a request costs what the server costs."""

from __future__ import annotations

from typing import Any


class Noop:
    def initialize(self, context: Any) -> None:
        """Nothing to load."""

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        return ["ok"] * len(data)
