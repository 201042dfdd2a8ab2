"""Medians, ratios and verdicts."""

from __future__ import annotations

import pytest

from benchmarks.figures import MEMORY, RATE, Samples, load_figure
from benchmarks.plan import FULL, NOOP, QUICK, Deployment, Point
from benchmarks.targets import (
    MODELSERVER,
    TARGETS,
    TORCHSERVE,
    Bound,
    Outcome,
    Target,
    judge,
)

RATE_TARGET = Target("rate", "noop b1 c32 rate", TORCHSERVE, Bound.AT_LEAST, 5.0)
MEMORY_TARGET = Target("memory", MEMORY, TORCHSERVE, Bound.AT_MOST, 0.35)


def test_median_of_every_figure_apart() -> None:
    samples = Samples()
    for rate, memory in ((10.0, 3.0), (1000.0, 1.0), (20.0, 2.0)):
        samples.add(MODELSERVER, "rate", rate)
        samples.add(MODELSERVER, MEMORY, memory)
    samples.add(TORCHSERVE, "rate", 4.0)
    samples.add(TORCHSERVE, "rate", 6.0)
    assert samples.medians() == {MODELSERVER: {"rate": 20.0, MEMORY: 2.0}, TORCHSERVE: {"rate": 5.0}}


def test_void_runs_are_told_and_do_not_count() -> None:
    samples = Samples()
    samples.discard("TorchServe", "noop b1 c32, round 2", "3 bad statuses")
    assert samples.void == ["TorchServe, noop b1 c32, round 2: 3 bad statuses"]
    assert samples.medians() == {}


@pytest.mark.parametrize(
    ("target", "own", "other", "outcome"),
    [
        (RATE_TARGET, 5000.0, 1000.0, Outcome.PASS),
        (RATE_TARGET, 4999.0, 1000.0, Outcome.MISS),
        (MEMORY_TARGET, 350.0, 1000.0, Outcome.PASS),
        (MEMORY_TARGET, 351.0, 1000.0, Outcome.MISS),
        (MEMORY_TARGET, 0.0, 1000.0, Outcome.PASS),
        (MEMORY_TARGET, 1.0, 0.0, Outcome.NOT_MEASURED),
    ],
)
def test_verdict(target: Target, own: float, other: float, outcome: Outcome) -> None:
    (verdict,) = judge({MODELSERVER: {target.figure: own}, TORCHSERVE: {target.figure: other}}, [target])
    assert verdict.outcome is outcome


def test_missing_figures_never_pass() -> None:
    full = {each.figure: 1.0 for each in TARGETS}
    for medians in ({}, {MODELSERVER: full}, {TORCHSERVE: full}, {MODELSERVER: {}, TORCHSERVE: full}):
        assert {verdict.outcome for verdict in judge(medians)} == {Outcome.NOT_MEASURED}


def test_every_target_is_measured_by_a_full_run() -> None:
    measured = {load_figure(point, kind) for point in FULL.points for kind in (RATE, "p50")}
    measured |= {"register", "scale", "recovery", "memory"}
    assert {target.figure for target in TARGETS} <= measured


def test_quick_points_are_points_of_the_full_plan() -> None:
    assert set(QUICK.points) < set(FULL.points)


def test_names_of_points_and_models() -> None:
    point = Point(Deployment(NOOP, 16), 128)
    assert point.key == "noop b16 c128"
    assert point.deployment.model == "noop_b16"
