"""Messages that clients compress.

grpcio would inflate them by itself, to any size, before it looks how large they are: a megabyte can become a gigabyte.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from modelserver.errors import MalformedMessage, MessageTooLarge

GZIP: Final = b"\x1f"  # with which no message of protobuf begins: no field has the wire type 7

_GZIP_FORMAT: Final = 31  # for zlib: a header of gzip, and the largest window


async def inflated(message: bytes, limit: int) -> bytes:
    """The message that was packed, in a thread. Raises MessageTooLarge above `limit` bytes, MalformedMessage."""
    plain = await asyncio.to_thread(_inflate, message, limit)
    if plain is None:
        raise MalformedMessage("The request message is malformed.")
    if len(plain) > limit:
        raise MessageTooLarge
    return plain


def _inflate(message: bytes, limit: int) -> bytes | None:
    """At most one byte more than `limit`; None for what gzip has not written."""
    inflator = zlib.decompressobj(_GZIP_FORMAT)
    try:
        plain = inflator.decompress(message, limit + 1)
    except zlib.error:
        return None
    if len(plain) > limit:
        return plain
    return plain if inflator.eof and not inflator.unused_data else None
