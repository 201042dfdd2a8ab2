"""Readings of NVIDIA GPUs, from the driver's management library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from modelserver.telemetry.records import Reading

_MEGA = 1 << 20


class GpusUnreadable(Exception):
    """There is nothing to read GPUs with; the text says why and what to do."""


def management_library() -> Any:
    """NVIDIA's module. Raises GpusUnreadable."""
    try:
        import pynvml
    except ImportError:
        text = "GPU metrics need the package nvidia-ml-py: pip install 'modelserver[gpu]'"
        raise GpusUnreadable(text) from None
    return pynvml


class Gpus:
    """The GPUs that the server uses, in its own order. All methods block."""

    def __init__(self, names: Sequence[str], nvml: Any) -> None:
        """`names` are indexes or UUIDs, as in CUDA_VISIBLE_DEVICES. Raises GpusUnreadable."""
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            self._handles = [self._handle(name) for name in names]
        except nvml.NVMLError as error:
            raise GpusUnreadable(f"GPU metrics are not available: {error}") from None

    def read(self) -> Iterator[Reading]:
        """Three values for each; one that the device does not tell is left out."""
        for number, handle in enumerate(self._handles):
            labels = ("Host", str(number))
            if memory := self._ask(self._nvml.nvmlDeviceGetMemoryInfo, handle):
                yield Reading("GPUMemoryUtilization", 100 * memory.used / memory.total, labels)
                yield Reading("GPUMemoryUsed", memory.used / _MEGA, labels)
            if rates := self._ask(self._nvml.nvmlDeviceGetUtilizationRates, handle):
                yield Reading("GPUUtilization", float(rates.gpu), labels)

    def _handle(self, name: str) -> Any:
        if name.isdecimal():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(name))
        return self._nvml.nvmlDeviceGetHandleByUUID(name)

    def _ask(self, question: Any, handle: Any) -> Any:
        try:
            return question(handle)
        except self._nvml.NVMLError:
            return None
