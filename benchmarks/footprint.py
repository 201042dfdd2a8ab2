"""What the frontend of a server holds, again and again, and whether it grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.processes import ProcessTree

WARM_UP = 0.1  # share of the time in which caches and pools may still fill


@dataclass(frozen=True)
class Footprint:
    """The frontend process at one moment, and how many processes the whole server has."""

    seconds: float  # since the begin
    rss: int  # bytes
    pss: int  # bytes
    descriptors: int
    threads: int
    processes: int


@dataclass(frozen=True)
class Growth:
    """Medians of the first and the last quarter after the warm-up, and the highest value after it."""

    first: float
    last: float
    most: float

    @property
    def ratio(self) -> float:
        return self.last / self.first


def take_footprint(tree: ProcessTree, seconds: float) -> Footprint:
    """Raises psutil.NoSuchProcess when the server has ended."""
    frontend = tree.root
    with frontend.oneshot():
        memory = frontend.memory_full_info()
        threads = frontend.num_threads()
    processes = len(tree.processes())
    return Footprint(seconds, memory.rss, memory.pss, frontend.num_fds(), threads, processes)


def growth(footprints: Sequence[Footprint], fact: Callable[[Footprint], float]) -> Growth:
    """How one fact went. Raises ValueError for fewer footprints than quarters."""
    values = [fact(each) for each in footprints[int(len(footprints) * WARM_UP) :]]
    quarter = len(values) // 4
    if not quarter:
        raise ValueError(f"{len(footprints)} footprints are too few")
    return Growth(median(values[:quarter]), median(values[-quarter:]), max(values))
