"""Compressed request bodies, inflated within a bound."""

from __future__ import annotations

import zlib
from typing import Final

_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's names of the formats


class NotInflatable(ValueError):
    """A body that is not what its Content-Encoding says; the text is for the client."""

    status = 400


class TooLarge(NotInflatable):
    """A body that is larger than a request may be once it is inflated."""

    status = 413


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its encoding, at most `limit` bytes. Raises `NotInflatable`, `TooLarge`."""
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in _WINDOWS:
        raise NotInflatable(f"Content-Encoding {encoding!r} is not supported: send gzip or deflate.")
    pieces, size, rest = [], 0, body
    while rest:  # gzip data may be several members
        inflater = zlib.decompressobj(_WINDOWS[coding])
        try:
            piece = inflater.decompress(rest, limit - size + 1)
        except zlib.error as error:
            raise NotInflatable(f"Request body is not valid {coding} data: {error}") from None
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise TooLarge(f"Request body exceeds max_request_size of {limit} bytes once it is inflated.")
        if not inflater.eof:
            raise NotInflatable(f"Request body ends in the middle of its {coding} data.")
        rest = inflater.unused_data
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
