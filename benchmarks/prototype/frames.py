"""What frontend and worker say to each other: a 4-byte little-endian length and a msgpack array of these."""

from __future__ import annotations

import msgspec

PREFIX = 4  # bytes


class Request(msgspec.Struct, array_like=True, gc=False):
    id: int
    mime: str
    body: bytes


class Reply(msgspec.Struct, array_like=True, gc=False):
    id: int
    body: bytes


encode = msgspec.msgpack.Encoder().encode
decode_requests = msgspec.msgpack.Decoder(list[Request]).decode
decode_replies = msgspec.msgpack.Decoder(list[Reply]).decode


def frame(batch: list[Request] | list[Reply]) -> bytes:
    payload = encode(batch)
    return len(payload).to_bytes(PREFIX, "little") + payload
