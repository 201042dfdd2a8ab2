"""What a running server holds: processes, descriptors, files, segments, sockets. Taken before a fault and after it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from harness.server import DEADLINE, ServerProcess

NURSERY = "modelserver nursery"


@dataclass(frozen=True)
class Census:
    """Everything is counted by what it is, not by its number: another process with another pid is the same."""

    processes: dict[str, int]  # living ones of the server's tree, by command line
    zombies: dict[str, int]  # dead and not reaped, by the command line of their parent
    frontend: dict[str, int]  # descriptors, by kind
    nursery: dict[str, int]
    sockets: dict[str, int]  # Unix sockets below the temporary directory, connections included, by path
    files: dict[str, int]  # below the temporary directory, by path
    segments: dict[str, int]  # of shared memory, by name; those that strangers use are left out

    @classmethod
    def of(cls, server: ServerProcess) -> Self:
        """What there is now."""
        tree = server.tree()
        frontend, *descendants = tree
        nursery = next((process for process in descendants if _title(process) == NURSERY), None)
        return cls(
            processes=_count(_title(process) for process in tree if not is_zombie(process)),
            zombies=_count(_title(process.parent()) for process in tree if is_zombie(process)),
            frontend=_descriptors(frontend.pid),
            nursery={} if nursery is None else _descriptors(nursery.pid),
            sockets=_count(_unix_sockets(server.temp)),
            files=_count(_paths(server.temp)),
            segments=_count(_segments({process.pid for process in tree})),
        )

    def changes(self, later: Census) -> dict[str, Any]:
        """What there is more or less of later, as counts by kind by field; empty if nothing is."""
        before, after = asdict(self), asdict(later)
        differences = {name: _difference(before[name], after[name]) for name in before}
        # Fewer is right: a connection that was just ending is counted before, and a segment may be a stranger's.
        for name in ("frontend", "segments"):
            differences[name] = {kind: count for kind, count in differences[name].items() if count > 0}
        return {name: difference for name, difference in differences.items() if difference}


def assert_settles(
    server: ServerProcess, before: Census, within: float = DEADLINE, *, fields: Collection[str] | None = None
) -> None:
    """Wait until the server holds what it held before, and nothing more; of these fields of the census, or of all."""
    end = time.monotonic() + within
    while changes := {
        name: change for name, change in before.changes(Census.of(server)).items() if fields is None or name in fields
    }:
        assert time.monotonic() < end, f"still not as before after {within} s: {changes}"
        time.sleep(0.02)


def is_zombie(process: psutil.Process | None) -> bool:
    """Dead, and its parent has not asked how."""
    try:
        return process is not None and process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _title(process: psutil.Process | None) -> str:
    try:
        return "" if process is None else " ".join(process.cmdline()).strip()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def _descriptors(pid: int) -> dict[str, int]:
    return _count(_kind(link) for link in _links(Path(f"/proc/{pid}/fd")))


def _links(directory: Path) -> Iterator[str]:
    for path in directory.iterdir():
        try:
            yield str(path.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile


def _kind(link: str) -> str:
    """`socket` or `pipe` for those, which have numbers; paths and the kernel's own names as they are."""
    return link.partition(":[")[0] if link.startswith(("socket:", "pipe:")) else link


def _unix_sockets(directory: Path) -> Iterator[str]:
    for line in Path("/proc/net/unix").read_text().splitlines():
        path = line.rpartition(" ")[2]
        if path.startswith(f"{directory}/"):
            yield path


def _paths(directory: Path) -> Iterator[str]:
    """Of everything below a directory, relative to it; what vanishes meanwhile is left out."""
    for place, directories, files in os.walk(directory):
        for name in (*directories, *files):
            yield str(Path(place, name).relative_to(directory))


def _segments(ours: set[int]) -> Iterator[str]:
    """Segments that nobody but the processes of `ours` has mapped: theirs, or left by the dead."""
    names = [path.name for path in Path("/dev/shm").glob("*")]
    maps = "".join(_maps(pid) for pid in psutil.pids() if pid not in ours) if names else ""
    return (name for name in names if f"/dev/shm/{name}" not in maps)


def _maps(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except (OSError, ValueError):
        return ""  # gone, or somebody else's


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names))


def _difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    names = before.keys() | after.keys()
    counts = {name: after.get(name, 0) - before.get(name, 0) for name in sorted(names)}
    return {name: count for name, count in counts.items() if count}
