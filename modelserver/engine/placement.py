"""Which GPU a new worker gets."""

from __future__ import annotations

from collections.abc import Sequence


class Placement:
    """Round robin over the server's GPUs, shared by all models that name no devices; the first one is 0."""

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self._next = 0

    def place(self, device_type: str, device_ids: Sequence[int] | None, started: int) -> int | None:
        """GPU of a model's next worker, None on CPU. `started` counts the workers the model has had since
        registration.
        """
        if device_type != "gpu" or self.gpus == 0:
            return None
        if device_ids:
            return device_ids[started % len(device_ids)]
        gpu = self._next
        self._next = (gpu + 1) % self.gpus
        return gpu
