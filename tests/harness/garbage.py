"""What only the cyclic garbage collector would free: such things keep their memory until it looks, which is rarely."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cycles(*kinds: type) -> Iterator[list[object]]:
    """Collects nothing within; the list then holds the objects of these kinds that were left behind in cycles."""
    found: list[object] = []
    gc.disable()
    gc.freeze()  # what is there already is not looked at: that would take most of a second
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += [f"{type(left).__name__}" for left in gc.garbage if isinstance(left, kinds)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()
