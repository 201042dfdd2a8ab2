"""Envelope `body`: the handler gets the bodies themselves instead of rows."""

from __future__ import annotations

from typing import Any

from ts.torch_handler.request_envelope.base import BaseEnvelope, value_of


class BodyEnvelope(BaseEnvelope):
    """Results are answered as they are."""

    def parse_input(self, data: Any) -> list[Any]:
        """The field `data` or the body of each request, None where it has neither."""
        return [value_of(row) for row in data]
