"""The end of a connection over TLS, for which both sides should say that they end it; many clients never do."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

# Of Linux's `tcp_info`: segments sent and not acknowledged, bytes acknowledged, bytes not yet sent.
_UNACKED_ACKED_UNSENT: Final = struct.Struct("=24xI92xQ16xI")


def delivered(transport: asyncio.BaseTransport) -> int | None:
    """Bytes that the client has received; None while the kernel has more for it, or if it does not tell.

    If this process had more, the kernel would get it before the loop's next turn. So twice the same number, with at
    least one turn in between, means that the client has everything.
    """
    try:
        facts = transport.get_extra_info("socket").getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED_ACKED_UNSENT.size
        )
        unacked, acked, unsent = _UNACKED_ACKED_UNSENT.unpack(facts)
    except (OSError, AttributeError, struct.error):
        return None
    return None if unacked or unsent else int(acked)
