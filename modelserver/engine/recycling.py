"""When a healthy worker is replaced by a fresh one, because handlers leak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recycling:
    """Limits after which a worker process has done its share; 0 is no limit."""

    max_requests: int = 0
    max_memory: int = 0  # bytes of resident memory

    def __bool__(self) -> bool:
        return bool(self.max_requests or self.max_memory)

    def why(self, served: int, memory: Callable[[], int]) -> str:
        """Why a worker that has `served` so many requests is due, "" if it is not; `memory` is asked only if needed."""
        if self.max_requests and served >= self.max_requests:
            return f"served {served} requests (limit {self.max_requests})"
        if self.max_memory and (resident := memory()) > self.max_memory:
            return f"holds {resident >> 20} MiB of memory (limit {self.max_memory >> 20} MiB)"
        return ""
