"""What the handler side needs from the process around it."""

from __future__ import annotations

from typing import Protocol

from modelserver.wire.frames import Chunk, Metrics


class Channel(Protocol):
    """The worker's connection to the frontend, as far as a running handler may use it."""

    def send(self, frame: Chunk | Metrics) -> None:
        """Send one frame now. Callable from any thread."""

    def cancelled(self, request_id: str) -> bool:
        """True once the client of this request of the running batch is known to be gone; never blocks."""
