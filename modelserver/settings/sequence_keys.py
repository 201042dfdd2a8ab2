"""The names under which requests say to which sequence they belong."""

from __future__ import annotations

from typing import NamedTuple

from modelserver.settings.table import Settings


class SequenceKeys(NamedTuple):
    """Headers of REST, inputs of gRPC, and headers that handlers look for."""

    id: str = "ts_request_sequence_id"
    start: str = "ts_request_sequence_start"
    end: str = "ts_request_sequence_end"

    @classmethod
    def of(cls, settings: Settings) -> SequenceKeys:
        """As configured."""
        return cls(
            settings.ts_header_key_sequence_id,
            settings.ts_header_key_sequence_start,
            settings.ts_header_key_sequence_end,
        )
