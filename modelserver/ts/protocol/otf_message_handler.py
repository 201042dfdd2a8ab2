"""The codec under the name that handlers and tests import, and the old location of the streaming function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ts.handler_utils import utils
from ts.protocol.codec import (
    END_OF_LIST,
    LOAD_MSG,
    PREDICT_MSG,
    RESPONSE,
    bool_size,
    create_load_model_response,
    create_predict_response,
    encode_response_headers,
    int_size,
    retrieve_msg,
)
from ts.utils.util import deprecated

__all__ = [
    "END_OF_LIST",
    "LOAD_MSG",
    "PREDICT_MSG",
    "RESPONSE",
    "bool_size",
    "create_load_model_response",
    "create_predict_response",
    "encode_response_headers",
    "int_size",
    "retrieve_msg",
    "send_intermediate_predict_response",
]


@deprecated("1.0", "ts.handler_utils.utils.send_intermediate_predict_response")
def send_intermediate_predict_response(
    ret: Any, req_id_map: Mapping[int, str], message: str, code: int, context: Any = None
) -> None:
    """Use `ts.handler_utils.utils.send_intermediate_predict_response`."""
    utils.send_intermediate_predict_response(ret, req_id_map, message, code, context)
