"""Predictions and inferences on the wire.

Responses are written here and not by protobuf, which would copy large ones twice more; a test compares both.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import DecodeError

from modelserver.errors import MalformedMessage
from modelserver.rpc.messages import OrderedPredictionsRequest

# A microsecond of the loop's time is what each costs that may take but four bytes.
_MOST_INPUTS: Final = 10_000

_PREDICTION: Final = b"\x0a"  # field 1, bytes
_SEQUENCE_ID: Final = b"\x12"  # field 2, string
_INFER_RESPONSE: Final = b"\x12"  # field 2, message


def parse(message_class: Any, data: bytes) -> Any:
    """A message. Raises MalformedMessage."""
    try:
        return message_class.FromString(data)
    except DecodeError:
        raise MalformedMessage("The request message is malformed.") from None


def prediction_request(data: bytes) -> Any:
    """A `PredictionsRequest` whose entries stand in the client's order. Raises MalformedMessage."""
    request = parse(OrderedPredictionsRequest, data)
    if len(request.input) > _MOST_INPUTS:
        raise MalformedMessage(f"The request has more than {_MOST_INPUTS} inputs.")
    return request


def prediction_response(body: bytes, sequence_id: str = "") -> bytes:
    """A `PredictionResponse`; empty fields are left out."""
    pieces = [_PREDICTION, _varint(len(body)), body] if body else []
    if sequence_id:
        encoded = sequence_id.encode()
        pieces += [_SEQUENCE_ID, _varint(len(encoded)), encoded]
    return b"".join(pieces)


def stream_infer_response(response: bytes) -> bytes:
    """A `ModelStreamInferResponse` with a serialized `ModelInferResponse`."""
    return b"".join((_INFER_RESPONSE, _varint(len(response)), response))


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    if number <= 0x7F:
        return number.to_bytes(1, "little")
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)
