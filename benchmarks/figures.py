"""What was measured: samples by server and figure, and their medians."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from benchmarks.plan import Point

# Kinds of figures of one point of load.
RATE = "rate"  # requests a second
P50 = "p50"  # ms
P99 = "p99"  # ms
SERVER_CPU = "cpu"  # µs of processor time per request, all processes of the server
CLIENT_CPU = "client"  # share of one core that the load generator used

# Figures of one server.
REGISTER = "register"  # s
RECOVERY = "recovery"  # s
SCALE = "scale"  # s
MEMORY = "memory"  # MiB

LIFECYCLE = (REGISTER, SCALE, RECOVERY, MEMORY)

Medians = Mapping[str, Mapping[str, float]]  # server, figure


def load_figure(point: Point, kind: str) -> str:
    """`noop b1 c32 rate`."""
    return f"{point.key} {kind}"


@dataclass
class Samples:
    """Every figure of every run that counts, and why the others do not."""

    values: defaultdict[str, defaultdict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    void: list[str] = field(default_factory=list)

    def add(self, server: str, figure: str, value: float) -> None:
        self.values[server][figure].append(value)

    def discard(self, server: str, run: str, reason: str) -> None:
        """A run in which anything failed says nothing about speed."""
        self.void.append(f"{server}, {run}: {reason}")

    def medians(self) -> dict[str, dict[str, float]]:
        return {
            server: {figure: median(runs) for figure, runs in figures.items()}
            for server, figures in self.values.items()
        }
