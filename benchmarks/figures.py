"""What was measured: samples by server and figure, and the one number that stands for a figure's runs."""

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
SCALE_FURTHER = "scale further"  # s
MEMORY = "memory"  # MiB
IDLE = "idle"  # millicores, all processes
IDLE_FRONTEND = "idle frontend"  # millicores, all processes but the workers

LIFECYCLE = (REGISTER, SCALE, SCALE_FURTHER, RECOVERY, MEMORY, IDLE, IDLE_FRONTEND)

# Figures of one server whose workers are killed under load.
CALM_RATE = "calm rate"  # good answers a second before
KILLS_RATE = "kills rate"  # good answers a second meanwhile
KILLS_KEPT = "kills kept"  # the latter as a share of the former
KILLS = "kills"
KILLS_LOST = "kills lost"  # requests without a good answer, per kill
KILLS_UNEXPLAINED = "kills unexplained"  # bad answers that name no cause
KILLS_UNANSWERED = "kills unanswered"  # requests without any answer
KILLS_SLOWEST = "kills slowest"  # s

KILL_LOOP = (
    CALM_RATE,
    KILLS_RATE,
    KILLS_KEPT,
    KILLS,
    KILLS_LOST,
    KILLS_UNEXPLAINED,
    KILLS_UNANSWERED,
    KILLS_SLOWEST,
)

# Figures of the soak.
SOAK_GROWTH = "soak growth"  # frontend memory at the end as a multiple of that at the begin
SOAK_LOST = "soak lost"  # requests without a good answer, per kill
SOAK_UNEXPLAINED = "soak unexplained"
SOAK_UNANSWERED = "soak unanswered"

# A promise that must hold in every run: the worst run stands for all. They are the better the lower they are.
WORST_COUNTS = frozenset({KILLS_LOST, KILLS_UNEXPLAINED, KILLS_UNANSWERED, KILLS_SLOWEST})

Summary = Mapping[str, Mapping[str, float]]  # server, figure


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

    def summary(self) -> dict[str, dict[str, float]]:
        """The median of each figure's runs, or the worst of them."""
        return {
            server: {figure: max(runs) if figure in WORST_COUNTS else median(runs) for figure, runs in figures.items()}
            for server, figures in self.values.items()
        }
