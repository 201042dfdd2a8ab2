"""What every worker finds in its environment because the server's settings say so."""

from __future__ import annotations

from modelserver.settings.table import Settings


def worker_environment(settings: Settings) -> dict[str, str]:
    """Names and texts that are set for every worker, whatever the user has exported."""
    return {
        "TS_DECODE_INPUT_REQUEST": settings.decode_input_request,
        "TS_IPEX_ENABLE": settings.ipex_enable,
        "TS_IPEX_GPU_ENABLE": settings.ipex_gpu_enable,
        "TS_REQUEST_SEQUENCE_ID": settings.ts_header_key_sequence_id,
        "TS_REQUEST_SEQUENCE_START": settings.ts_header_key_sequence_start,
        "TS_REQUEST_SEQUENCE_END": settings.ts_header_key_sequence_end,
    }
