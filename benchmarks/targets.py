"""How good the figures have to be: ratios between servers of the same run, or limits for the figure itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.figures import (
    BODIES,
    FORMATS,
    IDLE,
    KILLS_KEPT,
    KILLS_LOST,
    KILLS_UNANSWERED,
    KILLS_UNEXPLAINED,
    KSERVE,
    LOGGED,
    MEMORY,
    P50,
    RATE,
    RECOVERY,
    REFUSED,
    REGISTER,
    SCALE,
    SCALE_FURTHER,
    SCRAPE,
    SCRAPE_STALL,
    SOAK_GROWTH,
    SOAK_LOST,
    SOAK_UNANSWERED,
    SOAK_UNEXPLAINED,
    TENSOR_OVER_RAW,
    Summary,
    codec_figure,
    grpc_figure,
    kserve_figure,
    load_figure,
    log_figure,
    memory_figure,
    register_figure,
)
from benchmarks.plan import BATCHED, MLP, NOOP, WORKERS_AFTER_SCALING, Deployment, Point

MODELSERVER = "modelserver"
TORCHSERVE = "torchserve"
TORCHSERVE_ACCESS = "torchserve-access"
PROTOTYPE = "prototype"
GRPC_ECHO = "grpc-echo"
TRITON = "triton"


class Bound(StrEnum):
    AT_LEAST = ">="
    AT_MOST = "<="


class Measure(StrEnum):
    """What a limit is for."""

    RATIO = "ratio"  # modelserver's figure divided by the reference's
    VALUE = "value"  # modelserver's figure itself; the reference's is shown beside it


class Outcome(StrEnum):
    PASS = "PASS"
    MISS = "MISS"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Target:
    """modelserver's figure has to keep to a limit. `reference` is a server, "" where none has such a figure."""

    title: str
    figure: str
    reference: str
    bound: Bound
    limit: float
    measure: Measure = Measure.RATIO

    @property
    def text(self) -> str:
        """`<= 0.3` for a ratio, `value <= 2` for the figure itself."""
        words = "" if self.measure is Measure.RATIO else f"{self.measure} "
        return f"{words}{self.bound} {self.limit:g}"


@dataclass(frozen=True)
class Verdict:
    """A target with what came out; None where a figure is missing, which is a miss."""

    target: Target
    value: float | None
    reference_value: float | None

    @property
    def ratio(self) -> float | None:
        if self.value is None or not self.reference_value:
            return None
        return self.value / self.reference_value

    @property
    def outcome(self) -> Outcome:
        measured = self.ratio if self.target.measure is Measure.RATIO else self.value
        if measured is None:
            return Outcome.NOT_MEASURED
        at_least = self.target.bound is Bound.AT_LEAST
        kept = measured >= self.target.limit if at_least else measured <= self.target.limit
        return Outcome.PASS if kept else Outcome.MISS


_PLAIN = Point(Deployment(NOOP, 1), 32)
_BATCHED = Point(Deployment(NOOP, BATCHED), 32)
_SINGLE = Point(Deployment(NOOP, 1), 1)
_MLP = Point(Deployment(MLP, BATCHED), 32)


def _load(title: str, point: Point, kind: str, reference: str, bound: Bound, limit: float) -> Target:
    return Target(title, load_figure(point, kind), reference, bound, limit)


def _grpc(title: str, point: Point, kind: str, reference: str, bound: Bound, limit: float) -> Target:
    return Target(f"gRPC, {title}", grpc_figure(point, kind), reference, bound, limit)


def _value(title: str, figure: str, reference: str, bound: Bound, limit: float) -> Target:
    return Target(title, figure, reference, bound, limit, Measure.VALUE)


TARGETS = (
    _load("no-op, batch 1, 32 clients: rate", _PLAIN, RATE, TORCHSERVE, Bound.AT_LEAST, 5.0),
    _load("no-op, batch 1, 32 clients: rate", _PLAIN, RATE, TORCHSERVE_ACCESS, Bound.AT_LEAST, 4.0),
    _load("no-op, batch 1, 32 clients: rate", _PLAIN, RATE, PROTOTYPE, Bound.AT_LEAST, 0.5),
    _load("no-op, batch 16, 32 clients: rate", _BATCHED, RATE, TORCHSERVE, Bound.AT_LEAST, 3.0),
    _load("no-op, batch 1, 1 client: median latency", _SINGLE, P50, TORCHSERVE, Bound.AT_MOST, 0.5),
    _load("MLP over JSON, batch 16, 32 clients: rate", _MLP, RATE, TORCHSERVE, Bound.AT_LEAST, 1.8),
    _grpc("no-op, batch 1, 32 clients: rate", _PLAIN, RATE, TORCHSERVE, Bound.AT_LEAST, 3.0),
    _grpc("no-op, batch 16, 32 clients: rate", _BATCHED, RATE, GRPC_ECHO, Bound.AT_LEAST, 0.7),
    _grpc("no-op, batch 1, 1 client: median latency", _SINGLE, P50, TORCHSERVE, Bound.AT_MOST, 0.6),
    Target("register with one worker", REGISTER, TORCHSERVE, Bound.AT_MOST, 0.3),
    Target("scale from 1 to 4 workers", SCALE, TORCHSERVE, Bound.AT_MOST, 0.3),
    Target("scale from 1 to 8 workers", SCALE_FURTHER, TORCHSERVE, Bound.AT_MOST, 0.15),
    Target("first good answer after kill -9 of the worker", RECOVERY, TORCHSERVE, Bound.AT_MOST, 0.15),
    Target("memory with 4 workers (PSS)", MEMORY, TORCHSERVE, Bound.AT_MOST, 0.35),
    _value("idle with 4 workers, all processes: millicores", IDLE, TORCHSERVE, Bound.AT_MOST, 2.0),
    _value("scrape of 200 models with histograms: ms", SCRAPE, "", Bound.AT_MOST, 150.0),
    _value("scrape of 200 models: ms of the slowest ping in 1,000", SCRAPE_STALL, "", Bound.AT_MOST, 20.0),
    _value("a kill every second: share of the rate kept", KILLS_KEPT, TORCHSERVE, Bound.AT_LEAST, 0.8),
    # A kill takes the batch that its worker runs; batches hold one request here.
    _value("a kill every second: requests lost per kill", KILLS_LOST, TORCHSERVE, Bound.AT_MOST, 1.0),
    _value("a kill every second: errors without a cause", KILLS_UNEXPLAINED, TORCHSERVE, Bound.AT_MOST, 0.0),
    _value("a kill every second: requests without an answer", KILLS_UNANSWERED, TORCHSERVE, Bound.AT_MOST, 0.0),
    *(
        Target(f"{kind}: rate", log_figure(kind, RATE), TORCHSERVE, Bound.AT_LEAST, least)
        for kind, least in zip(LOGGED, (4.0, 4.0, 2.0), strict=True)
    ),
    *(
        Target(f"a worker by itself, {bodies}: rate", codec_figure(bodies), TORCHSERVE, Bound.AT_LEAST, 2.0)
        for bodies in BODIES
    ),
    Target(
        "400 MB of weights, state_dict: memory with 4 workers",
        memory_figure(FORMATS[0], WORKERS_AFTER_SCALING),
        TORCHSERVE,
        Bound.AT_MOST,
        0.4,
    ),
    *(
        Target(f"400 MB of weights, {form}: register", register_figure(form), TORCHSERVE, Bound.AT_MOST, 1.0)
        for form in FORMATS[:2]
    ),
    *(
        Target(f"Open Inference, {name}: rate", kserve_figure(name, RATE), reference, Bound.AT_LEAST, least)
        for name in KSERVE[:2]
        for reference, least in ((TORCHSERVE, 3.0), (TRITON, 1.0))
    ),
    _value("picture as a tensor: rate over that of plain bytes", TENSOR_OVER_RAW, "", Bound.AT_LEAST, 0.8),
    *(_value(f"{name}: cost over that of a served no-op", name, "", Bound.AT_MOST, 1.0) for name in REFUSED),
)

SOAK_TARGETS = (
    _value("frontend memory, last quarter over first", SOAK_GROWTH, "", Bound.AT_MOST, 1.1),
    _value("requests lost per kill", SOAK_LOST, "", Bound.AT_MOST, 1.0),
    _value("errors without a cause", SOAK_UNEXPLAINED, "", Bound.AT_MOST, 0.0),
    _value("requests without an answer", SOAK_UNANSWERED, "", Bound.AT_MOST, 0.0),
)


def judge(summary: Summary, targets: Sequence[Target] = TARGETS) -> list[Verdict]:
    """One verdict per target, in their order."""

    def value(server: str, figure: str) -> float | None:
        return summary.get(server, {}).get(figure)

    return [Verdict(each, value(MODELSERVER, each.figure), value(each.reference, each.figure)) for each in targets]
