"""How good the figures have to be: ratios between servers of the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.figures import MEMORY, P50, RATE, RECOVERY, REGISTER, SCALE, Medians, load_figure
from benchmarks.plan import BATCHED, MLP, NOOP, Deployment, Point

MODELSERVER = "modelserver"
TORCHSERVE = "torchserve"
TORCHSERVE_ACCESS = "torchserve-access"
PROTOTYPE = "prototype"


class Bound(StrEnum):
    AT_LEAST = ">="
    AT_MOST = "<="


class Outcome(StrEnum):
    PASS = "PASS"
    MISS = "MISS"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Target:
    """modelserver's figure divided by the reference's has to keep to a limit."""

    title: str
    figure: str
    reference: str
    bound: Bound
    limit: float


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
        if self.ratio is None:
            return Outcome.NOT_MEASURED
        at_least = self.target.bound is Bound.AT_LEAST
        kept = self.ratio >= self.target.limit if at_least else self.ratio <= self.target.limit
        return Outcome.PASS if kept else Outcome.MISS


_PLAIN = Point(Deployment(NOOP, 1), 32)
_BATCHED = Point(Deployment(NOOP, BATCHED), 32)
_SINGLE = Point(Deployment(NOOP, 1), 1)
_MLP = Point(Deployment(MLP, BATCHED), 32)


def _load(title: str, point: Point, kind: str, reference: str, bound: Bound, limit: float) -> Target:
    return Target(title, load_figure(point, kind), reference, bound, limit)


TARGETS = (
    _load("no-op, batch 1, 32 clients: rate", _PLAIN, RATE, TORCHSERVE, Bound.AT_LEAST, 5.0),
    _load("no-op, batch 1, 32 clients: rate", _PLAIN, RATE, TORCHSERVE_ACCESS, Bound.AT_LEAST, 4.0),
    _load("no-op, batch 1, 32 clients: rate", _PLAIN, RATE, PROTOTYPE, Bound.AT_LEAST, 0.5),
    _load("no-op, batch 16, 32 clients: rate", _BATCHED, RATE, TORCHSERVE, Bound.AT_LEAST, 3.0),
    _load("no-op, batch 1, 1 client: median latency", _SINGLE, P50, TORCHSERVE, Bound.AT_MOST, 0.5),
    _load("MLP over JSON, batch 16, 32 clients: rate", _MLP, RATE, TORCHSERVE, Bound.AT_LEAST, 1.8),
    Target("register with one worker", REGISTER, TORCHSERVE, Bound.AT_MOST, 0.3),
    Target("scale from 1 to 4 workers", SCALE, TORCHSERVE, Bound.AT_MOST, 0.3),
    Target("first good answer after kill -9 of the worker", RECOVERY, TORCHSERVE, Bound.AT_MOST, 0.3),
    Target("memory with 4 workers (PSS)", MEMORY, TORCHSERVE, Bound.AT_MOST, 0.35),
)


def judge(medians: Medians, targets: Sequence[Target] = TARGETS) -> list[Verdict]:
    """One verdict per target, in their order."""

    def value(server: str, figure: str) -> float | None:
        return medians.get(server, {}).get(figure)

    return [Verdict(each, value(MODELSERVER, each.figure), value(each.reference, each.figure)) for each in targets]
