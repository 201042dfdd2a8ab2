"""What the methods need from others that REST does not: keys to check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

Kind = Literal["management", "inference", "API"]


class Authorization(Protocol):
    """The keys of the server."""

    def require(self, header: bytes, kinds: Iterable[Kind]) -> None:
        """Raises InvalidKey unless the value of an `authorization` header shows a key of one of these kinds."""
