"""Compressed request bodies, inflated within a bound."""

from __future__ import annotations

import zlib
from typing import Final

_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's names of the formats
# Bytes first taken of each member, then twice as many each time: what lies behind its end is copied.
_STEP: Final = 1 << 10


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
    pieces, size, start, rest = [], 0, 0, memoryview(body)
    while start < len(rest):  # gzip data may be several members
        step, inflater = _STEP, zlib.decompressobj(_WINDOWS[coding])
        while start < len(rest) and not inflater.eof:
            taken = rest[start : start + step]
            try:
                piece = inflater.decompress(taken, limit - size + 1)
            except zlib.error as error:
                raise NotInflatable(f"Request body is not valid {coding} data: {error}") from None
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise TooLarge(f"Request body exceeds max_request_size of {limit} bytes once it is inflated.")
            start += len(taken) - len(inflater.unused_data)
            step *= 2
        if not inflater.eof:
            raise NotInflatable(f"Request body ends in the middle of its {coding} data.")
    return b"".join(pieces)
