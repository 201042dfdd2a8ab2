"""Messages of the protocol as the real protobuf runtime makes them, and fields that are written by hand."""

from __future__ import annotations

from typing import Any

from harness.stubs import module


def message(name: str, /, **fields: Any) -> Any:
    """Of the standard service."""
    return getattr(module("grpc_predict_v2_pb2"), name)(**fields)


def parsed(name: str, data: bytes) -> Any:
    """A message from its bytes. Raises `DecodeError`."""
    return getattr(module("grpc_predict_v2_pb2"), name).FromString(data)


def varint(number: int) -> bytes:
    """As the encoding of protobuf has it."""
    data = b""
    while number > 0x7F:
        data += bytes([number & 0x7F | 0x80])
        number >>= 7
    return data + bytes([number])


def delimited(number: int, data: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data
