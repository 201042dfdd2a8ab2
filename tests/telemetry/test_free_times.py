"""Since when workers had been free, from the records that they leave."""

from __future__ import annotations

from modelserver.telemetry.free_times import FreeTimes
from modelserver.telemetry.records import BatchDone, WorkerLoaded


def done(sent: float, replied: float) -> BatchDone:
    return BatchDone("W", ["r"], sent, replied, replied, ())


def test_a_worker_is_free_since_its_last_reply() -> None:
    times = FreeTimes()
    times.loaded(WorkerLoaded(1.0, "W", 0.0))
    times.replied(done(2.0, 3.0))
    times.replied(done(5.0, 6.0))
    assert (times.before("W", 2.0), times.before("W", 5.0)) == (1.0, 3.0)


def test_an_asynchronous_worker_is_free_though_it_has_batches() -> None:
    """Its replies overlap: what a request waited for was company."""
    times = FreeTimes()
    times.loaded(WorkerLoaded(1.0, "W", 0.0))
    times.replied(done(2.5, 3.0))
    times.replied(done(2.0, 4.0))
    assert times.before("W", 2.0) == 0.0
