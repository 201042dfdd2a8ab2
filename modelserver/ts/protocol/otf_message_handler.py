"""Old location of the streaming function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ts.context import Context
from ts.handler_utils import utils
from ts.utils.util import deprecated


@deprecated("1.0", "ts.handler_utils.utils.send_intermediate_predict_response")
def send_intermediate_predict_response(
    ret: Any, req_id_map: Mapping[int, str], message: str, code: int, context: Context
) -> None:
    """Use `ts.handler_utils.utils.send_intermediate_predict_response`."""
    utils.send_intermediate_predict_response(ret, req_id_map, message, code, context)
