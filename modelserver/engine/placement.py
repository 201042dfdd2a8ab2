"""Which GPUs a new worker gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a worker computes."""

    gpu: int | None = None  # as the handler is told
    device: int | None = None  # the (first) GPU, by its place among those of the server
    environment: dict[str, str] = field(default_factory=dict)


class Slices:
    """The GPUs of one parallel model, cut into slices of `level`; a worker gets a free one as long as there is any."""

    def __init__(self, devices: Sequence[int], level: int) -> None:
        self.capacity = len(devices) // level
        self._devices = devices
        self._level = level
        self._taken: Counter[int] = Counter()
        self._next = 0

    def take(self) -> tuple[int, Sequence[int]]:
        """Index of the slice's first device in the model's list, and its devices. Needs a capacity."""
        turn = [(self._next + step) % self.capacity for step in range(self.capacity)]
        number = min(turn, key=self._taken.__getitem__)
        self._next = (number + 1) % self.capacity
        self._taken[number] += 1
        start = number * self._level
        return start, self._devices[start : start + self._level]

    def release(self, start: int) -> None:
        """The worker that had this slice is no more."""
        self._taken[start // self._level] -= 1


class Placement:
    """Round robin over the server's GPUs, shared by all models that name no devices; the first one is 0.

    `variable` restricts a process to some GPUs; `names` are what it calls those of the server, their indexes by
    default.
    """

    def __init__(self, gpus: int, variable: str = "CUDA_VISIBLE_DEVICES", names: Sequence[str] = ()) -> None:
        self.gpus = gpus
        self._variable = variable
        self._names = names or [str(gpu) for gpu in range(gpus)]
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

    def slices(self, device_type: str, device_ids: Sequence[int] | None, level: int) -> Slices | None:
        """Of a model whose workers take `level` GPUs each; None for a model without parallelism, or on CPU."""
        if not level or device_type != "gpu" or self.gpus == 0:
            return None
        return Slices(device_ids or range(self.gpus), level)

    def seat(self, start: int, devices: Sequence[int]) -> Seat:
        """The seat on a slice. The handler is told its start, although the worker counts its devices from 0."""
        names = ",".join(self._names[device] for device in devices)
        return Seat(start, devices[0], {self._variable: names} if self._variable else {})
