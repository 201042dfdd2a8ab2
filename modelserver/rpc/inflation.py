"""Messages that clients compress.

grpcio would inflate them by itself, to any size, before it looks how large they are: a megabyte can become a gigabyte.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from modelserver.errors import MalformedMessage, MessageTooLarge

# What packed messages begin with: those of gzip, and those of zlib (which gRPC calls deflate). No message of ours does:
# the first would be of wire type 7, the second a field 15.
_GZIP: Final = b"\x1f"
_ZLIB: Final = b"\x78"
PACKED: Final = (_GZIP, _ZLIB)

_FORMATS: Final = {_GZIP: 31, _ZLIB: 15}  # for zlib: with a header of the one or the other, and the largest window


async def inflated(message: bytes, limit: int) -> bytes:
    """The message that was packed, in a thread. Raises MessageTooLarge above `limit` bytes, MalformedMessage."""
    plain = await asyncio.to_thread(_inflate, message, limit)
    if plain is None:
        raise MalformedMessage("The request message is malformed.")
    if len(plain) > limit:
        raise MessageTooLarge
    return plain


def _inflate(message: bytes, limit: int) -> bytes | None:
    """At most one byte more than `limit`; None for what nobody has packed."""
    inflator = zlib.decompressobj(_FORMATS[message[:1]])
    try:
        plain = inflator.decompress(message, limit + 1)
    except zlib.error:
        return None
    if len(plain) > limit:
        return plain
    return plain if inflator.eof and not inflator.unused_data else None
