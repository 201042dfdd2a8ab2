"""Names of requests."""

from __future__ import annotations

import os

_POOL = 256  # request ids per read of the system's random source
_VARIANT = "89ab"


class RequestIds:
    """Makes random UUIDs (version 4) as text; a read of the system's random source serves many of them."""

    __slots__ = ("_at", "_digits")

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def next(self) -> str:
        """A new id, 36 characters."""
        at = self._at
        if at == len(self._digits):
            self._digits = os.urandom(16 * _POOL).hex()
            at = 0
        self._at = at + 32
        digits = self._digits[at : at + 32]
        variant = _VARIANT[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
