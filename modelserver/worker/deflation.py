"""Response bodies compressed for clients that ask for it."""

from __future__ import annotations

import zlib
from typing import Final

from modelserver.wire.frames import Reply

_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's names of the formats
_LEVEL: Final = 1  # the fastest: a worker has better things to do
_LEAST: Final = 1 << 10  # bytes of a body that is worth it


def wanted_coding(accepted: bytes) -> str | None:
    """The one coding that an Accept-Encoding names, if it is one of ours.

    A list of several is what libraries send of themselves, and not taken as a wish: tensors are seldom smaller for it.
    """
    coding = accepted.decode("latin-1").strip().lower()
    return coding if coding in _WINDOWS else None


def compress(reply: Reply, coding: str) -> None:
    """Put a whole answer into this coding, if it is smaller then and in none that the handler has chosen."""
    if len(reply.body) < _LEAST or any(name.lower() == "content-encoding" for name, _ in reply.headers):
        return
    body = zlib.compress(reply.body, _LEVEL, _WINDOWS[coding])
    if len(body) < len(reply.body):
        reply.body = body
        reply.headers = [*reply.headers, ("content-encoding", coding)]
