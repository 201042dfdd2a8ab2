"""What was measured: samples by server and figure, and the one number that stands for a figure's runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from benchmarks.plan import WORKERS_AFTER_SCALING, Point

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

# Kinds of logging: as a server does by itself, one line a request, and all lines there are.
BUILT_IN = "default logging"
ACCESS_ONLY = "access log only"
EVERYTHING = "everything at DEBUG"
LOGGED = (BUILT_IN, ACCESS_ONLY, EVERYTHING)

# Figures of one server that asks for keys: what one refused request costs as a share of a served one.
SERVED = "served"
REFUSED = ("unknown model refused", "bad key refused", "too large refused")

# Figures of workers with 400 MB of weights in a file of some format, and of workers by themselves.
FORMATS = ("state_dict", "TorchScript", "torch.export")
BODIES = ("small JSON", "JSON of 64 kB", "JSON of 1 MB", "64 kB of bytes", "1 MB of bytes")

# Points of load of Open Inference, and the rate of the picture as a tensor as a share of that of its plain bytes.
KSERVE = (
    "small JSON, batch 1, 32 clients",
    "small JSON, batch 16, 32 clients",
    "picture as a tensor, 8 clients",
    "picture as plain bytes, 8 clients",
)
TENSOR_OVER_RAW = "tensor over raw"

# Figures of scrapes of a server that has served many models.
SCRAPE = "scrape"  # ms
SCRAPE_SIZE = "scrape size"  # MB
SCRAPE_STALL = "scrape stall"  # ms that one ping in a thousand takes meanwhile

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


def log_figure(kind: str, figure: str) -> str:
    """`access log only rate`: a figure of no-op, batch 1, 32 clients, with this kind of logging."""
    return f"{kind} {figure}"


def register_figure(form: str) -> str:
    """s to register weights of this format, with one worker."""
    return f"{form} register"


def memory_figure(form: str, workers: int) -> str:
    """MiB of all processes of the server with so many workers."""
    return f"{form} memory {workers}"


def codec_figure(bodies: str) -> str:
    """Requests a second that one worker turns into rows, and into replies with the same bodies."""
    return f"{bodies} codec"


def handler_figures() -> set[str]:
    """All figures of weights and of workers by themselves."""
    weights = {figure for form in FORMATS for figure in (register_figure(form), memory_figure(form, 1))}
    return weights | {memory_figure(form, WORKERS_AFTER_SCALING) for form in FORMATS} | set(map(codec_figure, BODIES))


def cost_of(name: str) -> str:
    """µs of processor time of one request of this kind, all processes of the server."""
    return f"{name} cost"


def grpc_figure(point: Point, kind: str) -> str:
    """`grpc noop b1 c32 rate`."""
    return f"grpc {load_figure(point, kind)}"


def kserve_figure(name: str, kind: str) -> str:
    """`small JSON, 32 clients rate`."""
    return f"{name} {kind}"


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
