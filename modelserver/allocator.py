"""How freed memory is kept for the next large bodies. Elsewhere than with glibc nothing is changed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from typing import Final

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Bytes. glibc goes up to these by itself, but keeps no more than twice the largest block that was freed: a batch of
# several large requests goes back to the kernel, and comes again to be cleared page by page. 16 requests of 1 MB took
# twice as long, in a worker as in the frontend.
_LARGEST_KEPT: Final = 32 << 20  # of one block
_MOST_KEPT: Final = 64 << 20  # at the end of the heap
_CHOSEN: Final = ("MALLOC_", "GLIBC_TUNABLES")  # how variables begin with which users have decided themselves


def keep_freed_memory(environment: Mapping[str, str]) -> None:
    """From now on; call it when the model has loaded, because what that has freed should go back."""
    if not any(name.startswith(_CHOSEN) for name in environment):
        _call("mallopt", _M_MMAP_THRESHOLD, _LARGEST_KEPT)
        _call("mallopt", _M_TRIM_THRESHOLD, _MOST_KEPT)


def give_freed_memory_back() -> None:
    """What has been kept goes to the kernel; it takes milliseconds."""
    _call("malloc_trim", 0)


def _call(name: str, *numbers: int) -> None:
    """A function of the C library, unless that has none of this name."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*numbers)
