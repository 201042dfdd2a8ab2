"""The restart schedule, the give-up window and what counts as healthy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelserver.engine.recovery import DELAYS, Recovery


def attempts(recovery: Recovery, *, had_loaded: bool) -> list[float]:
    """Moments of the attempts of one episode whose every attempt fails at once."""
    now = 0.0
    moments: list[float] = []
    while (delay := recovery.stopped(now, had_loaded=had_loaded and not moments, permanent=False)) is not None:
        now += delay
        moments.append(now)
    return moments


def test_a_worker_that_never_loaded_follows_the_published_schedule() -> None:
    assert attempts(Recovery(300), had_loaded=False) == [1, 2, 4, 7, 12, 20, 33, 54, 88, 143, 232, 376]


def test_a_worker_that_had_loaded_is_tried_at_once_and_then_by_the_schedule() -> None:
    assert attempts(Recovery(8), had_loaded=True) == [0, 1, 2, 4, 7, 12]


def test_no_window_no_retry() -> None:
    recovery = Recovery(0)
    assert recovery.stopped(0.0, had_loaded=True, permanent=False) is None
    assert not recovery.healthy(0.0)


def test_permanent_causes_are_not_retried() -> None:
    recovery = Recovery(300)
    assert recovery.stopped(0.0, had_loaded=False, permanent=True) is None
    assert recovery.gave_up


def test_a_successful_load_ends_the_episode() -> None:
    recovery = Recovery(300)
    recovery.stopped(0.0, had_loaded=True, permanent=False)
    recovery.stopped(1.0, had_loaded=False, permanent=False)
    assert recovery.loaded()
    assert not recovery.loaded()
    assert recovery.stopped(1000.0, had_loaded=True, permanent=False) == 0.0


def test_healthy_until_the_window_is_over() -> None:
    recovery = Recovery(8)
    assert recovery.healthy(0.0)
    recovery.stopped(10.0, had_loaded=False, permanent=False)
    assert recovery.healthy(17.9)
    assert not recovery.healthy(18.0)


@given(window=st.integers(0, 5000), loaded=st.booleans())
def test_every_attempt_but_the_last_begins_inside_the_window(window: int, loaded: bool) -> None:
    moments = attempts(Recovery(window), had_loaded=loaded)
    assert all(moment < window for moment in moments[:-1])
    assert len(moments) <= len(DELAYS) + 3
