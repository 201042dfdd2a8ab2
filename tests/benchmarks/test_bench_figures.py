"""Medians, ratios and verdicts."""

from __future__ import annotations

import pytest

from benchmarks.figures import (
    IDLE,
    KILL_LOOP,
    KILLS_LOST,
    KSERVE,
    LIFECYCLE,
    LOGGED,
    MEMORY,
    RATE,
    REFUSED,
    SCRAPE,
    SCRAPE_STALL,
    TENSOR_OVER_RAW,
    Samples,
    grpc_figure,
    handler_figures,
    kserve_figure,
    load_figure,
    log_figure,
)
from benchmarks.plan import FULL, GRPC_POINTS, NOOP, QUICK, Deployment, Point
from benchmarks.targets import (
    MODELSERVER,
    SOAK_TARGETS,
    TARGETS,
    TORCHSERVE,
    Bound,
    Measure,
    Outcome,
    Target,
    judge,
)

RATE_TARGET = Target("rate", "noop b1 c32 rate", TORCHSERVE, Bound.AT_LEAST, 5.0)
MEMORY_TARGET = Target("memory", MEMORY, TORCHSERVE, Bound.AT_MOST, 0.35)
IDLE_TARGET = Target("idle", IDLE, TORCHSERVE, Bound.AT_MOST, 2.0, Measure.VALUE)


def test_median_of_every_figure_apart() -> None:
    samples = Samples()
    for rate, memory in ((10.0, 3.0), (1000.0, 1.0), (20.0, 2.0)):
        samples.add(MODELSERVER, "rate", rate)
        samples.add(MODELSERVER, MEMORY, memory)
    samples.add(TORCHSERVE, "rate", 4.0)
    samples.add(TORCHSERVE, "rate", 6.0)
    assert samples.summary() == {MODELSERVER: {"rate": 20.0, MEMORY: 2.0}, TORCHSERVE: {"rate": 5.0}}


def test_one_bad_run_stands_for_a_figure_that_must_hold_in_every_run() -> None:
    samples = Samples()
    for lost in (0.0, 0.5, 0.0):
        samples.add(MODELSERVER, KILLS_LOST, lost)
    assert samples.summary() == {MODELSERVER: {KILLS_LOST: 0.5}}


def test_void_runs_are_told_and_do_not_count() -> None:
    samples = Samples()
    samples.discard("TorchServe", "noop b1 c32, round 2", "3 bad statuses")
    assert samples.void == ["TorchServe, noop b1 c32, round 2: 3 bad statuses"]
    assert samples.summary() == {}


@pytest.mark.parametrize(
    ("target", "own", "other", "outcome"),
    [
        (RATE_TARGET, 5000.0, 1000.0, Outcome.PASS),
        (RATE_TARGET, 4999.0, 1000.0, Outcome.MISS),
        (MEMORY_TARGET, 350.0, 1000.0, Outcome.PASS),
        (MEMORY_TARGET, 351.0, 1000.0, Outcome.MISS),
        (MEMORY_TARGET, 0.0, 1000.0, Outcome.PASS),
        (MEMORY_TARGET, 1.0, 0.0, Outcome.NOT_MEASURED),
        (IDLE_TARGET, 2.0, 1000.0, Outcome.PASS),
        (IDLE_TARGET, 2.1, 1000.0, Outcome.MISS),
        (IDLE_TARGET, 0.0, 0.0, Outcome.PASS),
    ],
)
def test_verdict(target: Target, own: float, other: float, outcome: Outcome) -> None:
    (verdict,) = judge({MODELSERVER: {target.figure: own}, TORCHSERVE: {target.figure: other}}, [target])
    assert verdict.outcome is outcome


def test_missing_figures_never_pass() -> None:
    full = {each.figure: 1.0 for each in TARGETS}
    for summary in ({}, {TORCHSERVE: full}, {MODELSERVER: {}, TORCHSERVE: full}):
        assert {verdict.outcome for verdict in judge(summary)} == {Outcome.NOT_MEASURED}


def test_a_ratio_needs_both_figures_and_a_value_only_its_own() -> None:
    verdicts = judge({MODELSERVER: {MEMORY: 1.0, IDLE: 1.0}}, [MEMORY_TARGET, IDLE_TARGET])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.NOT_MEASURED, Outcome.PASS]


def test_a_target_says_what_its_limit_is_for() -> None:
    assert (MEMORY_TARGET.text, IDLE_TARGET.text) == ("<= 0.35", "value <= 2")


def test_targets_of_the_soak_need_no_other_server() -> None:
    figures = {target.figure: 1.0 for target in SOAK_TARGETS}
    outcomes = [verdict.outcome for verdict in judge({MODELSERVER: figures}, SOAK_TARGETS)]
    assert outcomes == [Outcome.PASS, Outcome.PASS, Outcome.MISS, Outcome.MISS]


def test_every_target_is_measured_by_a_full_run() -> None:
    measured = {load_figure(point, kind) for point in FULL.points for kind in (RATE, "p50")}
    measured |= {grpc_figure(point, kind) for point in GRPC_POINTS for kind in (RATE, "p50")}
    measured |= {*LIFECYCLE, *KILL_LOOP, *REFUSED, SCRAPE, SCRAPE_STALL}
    measured |= {log_figure(kind, RATE) for kind in LOGGED}
    measured |= {TENSOR_OVER_RAW, *(kserve_figure(name, RATE) for name in KSERVE)}
    measured |= handler_figures()
    assert {target.figure for target in TARGETS} <= measured


def test_quick_points_are_points_of_the_full_plan() -> None:
    assert set(QUICK.points) < set(FULL.points)


def test_names_of_points_and_models() -> None:
    point = Point(Deployment(NOOP, 16), 128)
    assert point.key == "noop b16 c128"
    assert point.deployment.model == "noop_b16"
