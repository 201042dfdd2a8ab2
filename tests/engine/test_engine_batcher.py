"""The dynamic batcher under a virtual clock: the timings that clients of TorchServe observe, and what must hold
whatever happens.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelserver.engine.batcher import DynamicBatcher
from modelserver.engine.job import Job
from modelserver.engine.scheduler import Action, NotAccepted, Send, Wake, Withdraw
from modelserver.wire.frames import DESCRIBE, EXPLAIN, PREDICT, Request


def make_job(name: str, kind: int = PREDICT) -> Job:
    return Job(Request(name, [], [], {}), "m", "default", 0.0, lambda job: None, kind)


@dataclass
class Bench:
    """Drives a batcher on a virtual clock and records (time, worker, job names) of every batch sent."""

    batcher: DynamicBatcher
    now: float = 0.0
    sent: list[tuple[float, int, str]] = field(default_factory=list)
    open: dict[int, int] = field(default_factory=dict)  # worker -> unanswered batch
    wakes: list[float] = field(default_factory=list)

    def act(self, actions: list[Action] | tuple[Action, ...]) -> None:
        for action in actions:
            if isinstance(action, Send):
                assert action.worker not in self.open, "a second batch for a busy worker"
                self.open[action.worker] = action.batch
                self.sent.append((round(self.now, 3), action.worker, "".join(job.request.id for job in action.jobs)))
            elif isinstance(action, Wake):
                heapq.heappush(self.wakes, action.at)

    def advance(self, to: float) -> None:
        while self.wakes and self.wakes[0] <= to:
            self.now = max(self.now, heapq.heappop(self.wakes))
            self.act(list(self.batcher.tick(self.now)))
        self.now = to

    def add(self, at: float, name: str, kind: int = PREDICT) -> Job:
        self.advance(at)
        job = make_job(name, kind)
        self.act(list(self.batcher.add(job, self.now)))
        return job

    def ready(self, worker: int) -> None:
        self.act(list(self.batcher.ready(worker, self.now)))

    def answer(self, worker: int) -> None:
        self.act(list(self.batcher.reply(worker, self.open.pop(worker), self.now)))


def bench(batch_size: int = 4, max_delay: float = 1.0, capacity: int = 100, workers: int = 1) -> Bench:
    made = Bench(DynamicBatcher(batch_size=batch_size, max_delay=max_delay, capacity=capacity, max_bytes=1 << 30))
    for worker in range(workers):
        made.ready(worker)
    return made


def test_a_single_job_waits_for_company_until_the_delay_is_over() -> None:
    b = bench()
    b.add(0.0, "a")
    b.advance(0.99)
    assert b.sent == []
    b.advance(1.0)
    assert b.sent == [(1.0, 0, "a")]


def test_a_full_batch_leaves_at_once() -> None:
    b = bench()
    for at, name in [(0.0, "a"), (0.01, "b"), (0.02, "c"), (0.03, "d")]:
        b.add(at, name)
    assert b.sent == [(0.03, 0, "abcd")]


def test_the_delay_counts_from_the_first_job_taken() -> None:
    b = bench()
    for at, name in [(0.0, "a"), (0.4, "b"), (0.9, "c")]:
        b.add(at, name)
    b.advance(1.0)
    b.answer(0)
    b.add(1.1, "d")
    b.advance(3.0)
    assert b.sent == [(1.0, 0, "abc"), (2.1, 0, "d")]


def test_free_workers_do_not_split_a_forming_batch() -> None:
    b = bench(workers=2)
    for at, name in [(0.0, "a"), (0.3, "b"), (0.6, "c"), (1.2, "d"), (1.3, "e")]:
        b.add(at, name)
    b.advance(3.0)
    assert b.sent == [(1.0, 0, "abc"), (2.2, 1, "de")]


def test_without_delay_a_batch_takes_whatever_waits() -> None:
    b = bench(batch_size=8, max_delay=0.0)
    b.add(0.0, "x")
    for name in "abcdef":
        b.add(0.1, name)
    b.advance(1.0)
    b.answer(0)
    assert b.sent == [(0.0, 0, "x"), (1.0, 0, "abcdef")]


def test_batch_size_one_never_waits() -> None:
    b = bench(batch_size=1, workers=2)
    for name in "abc":
        b.add(0.0, name)
    assert b.sent == [(0.0, 0, "a"), (0.0, 1, "b")]
    b.answer(1)
    assert b.sent[-1] == (0.0, 1, "c")


def test_a_batch_holds_one_kind_and_describe_travels_alone() -> None:
    b = bench(workers=3)
    b.add(0.0, "a")
    b.add(0.1, "e", EXPLAIN)
    assert b.sent == [(0.1, 0, "a")]
    b.add(0.2, "d", DESCRIBE)
    assert b.sent[1:] == [(0.2, 1, "e"), (0.2, 2, "d")]


def test_the_queue_is_bounded_and_running_jobs_do_not_count() -> None:
    b = bench(batch_size=1, capacity=2)
    for name in "abc":
        b.add(0.0, name)
    with pytest.raises(NotAccepted):
        b.add(0.0, "d")
    assert b.batcher.waiting == 2
    b.answer(0)
    b.add(0.0, "d")


def test_jobs_wait_while_no_worker_is_ready() -> None:
    b = bench(batch_size=1, workers=0)
    b.add(0.0, "a")
    assert b.sent == []
    b.ready(7)
    assert b.sent == [(0.0, 7, "a")]


def test_a_dead_worker_fails_what_it_ran_and_nothing_else() -> None:
    b = bench(batch_size=1)
    running = b.add(0.0, "a")
    b.add(0.0, "b")
    lost = b.batcher.gone(0, 0.0)
    assert lost.failed == [running]
    b.open.clear()
    b.ready(1)
    assert b.sent[-1] == (0.0, 1, "b")


def test_a_batch_the_dead_worker_had_not_read_goes_back_to_the_head_in_order() -> None:
    b = bench(batch_size=2, max_delay=0.0)
    for name in "a":
        b.add(0.0, name)
    b.answer(0)
    b.batcher.retire(0, 0.0)
    for name in "bcd":
        b.add(0.0, name)
    b.ready(1)
    assert b.sent[-1] == (0.0, 1, "bc")
    assert b.batcher.gone(1, 0.0, unread=True).failed == []
    b.open.clear()
    b.ready(2)
    assert b.sent[-1] == (0.0, 2, "bc")


def test_a_forming_batch_moves_to_another_worker_when_its_own_dies() -> None:
    b = bench(workers=2)
    b.add(0.0, "a")
    b.advance(0.5)
    b.act(list(b.batcher.gone(0, b.now).actions))
    b.advance(5.0)
    assert b.sent == [(1.5, 1, "a")]


def test_cancelled_jobs_never_reach_a_worker_and_free_their_place() -> None:
    b = bench(batch_size=1, capacity=1)
    running = b.add(0.0, "a")
    waiting = b.add(0.0, "b")
    assert b.batcher.cancel(waiting, 0.0) == ()
    b.add(0.0, "c")
    assert b.batcher.cancel(running, 0.0) == [Withdraw(0, 1, running)]
    b.answer(0)
    assert b.sent[-1] == (0.0, 0, "c")


def test_the_last_client_of_a_forming_batch_leaving_frees_the_worker() -> None:
    b = bench()
    job = b.add(0.0, "a")
    b.batcher.cancel(job, 0.1)
    assert b.batcher.idle
    b.add(0.5, "b")
    b.advance(5.0)
    assert b.sent == [(1.5, 0, "b")]


def test_clients_that_come_and_go_do_not_grow_the_queue() -> None:
    b = bench(batch_size=1, capacity=5)
    b.add(0.0, "a")
    for _ in range(1000):
        b.batcher.cancel(b.add(0.0, "x"), 0.0)
    assert len(b.batcher._queue) <= 6


def test_a_retired_worker_finishes_but_gets_nothing_more() -> None:
    b = bench(batch_size=1)
    b.add(0.0, "a")
    b.add(0.0, "b")
    b.act(list(b.batcher.retire(0, 0.0)))
    b.answer(0)
    assert [name for _, _, name in b.sent] == ["a"]
    assert b.batcher.waiting == 1


def test_clear_returns_what_waits_and_forms_but_not_what_runs() -> None:
    b = bench(batch_size=2, workers=1)
    b.add(0.0, "a")
    b.add(0.0, "b")
    waiting = [b.add(0.0, "c"), b.add(0.0, "d")]
    assert b.batcher.clear() == waiting
    assert not b.batcher.idle
    b.answer(0)
    assert b.batcher.idle


class BatcherMachine(RuleBasedStateMachine):
    """Any order of events: every job runs at most once, in order, on one worker, in a batch of one kind; none is
    forgotten.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bench = bench(batch_size=3, max_delay=1.0, capacity=6, workers=0)
        self.fresh = 0  # workers so far
        self.alive: set[int] = set()
        self.waiting: list[Job] = []
        self.running: dict[int, list[Job]] = {}
        self.done: set[str] = set()
        self.names = 0

    def absorb(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                assert action.worker in self.alive
                assert action.worker not in self.running
                assert 1 <= len(action.jobs) <= 3
                assert len({job.kind for job in action.jobs}) == 1
                assert action.jobs[0].kind != DESCRIBE or len(action.jobs) == 1
                assert action.jobs == self.waiting[: len(action.jobs)], "first come, first served"
                del self.waiting[: len(action.jobs)]
                self.running[action.worker] = action.jobs
        self.bench.act(actions)

    @rule()
    def worker_loads(self) -> None:
        self.alive.add(self.fresh)
        self.absorb(list(self.bench.batcher.ready(self.fresh, self.bench.now)))
        self.fresh += 1

    @rule(kind=st.sampled_from([PREDICT, PREDICT, EXPLAIN, DESCRIBE]))
    def arrive(self, kind: int) -> None:
        job = make_job(f"{self.names},", kind)
        self.names += 1
        self.waiting.append(job)
        try:
            self.absorb(list(self.bench.batcher.add(job, self.bench.now)))
        except NotAccepted:
            assert self.waiting.pop() is job
            assert self.bench.batcher.waiting >= 6

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[worker]
        self.absorb(list(self.bench.batcher.reply(worker, self.bench.open.pop(worker), self.bench.now)))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), unread=st.booleans())
    def die(self, data: st.DataObject, unread: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.discard(worker)
        self.bench.open.pop(worker, None)
        ran = self.running.pop(worker, [])
        forming = self.bench.batcher._forming
        taken = len(forming.jobs) if forming else 0  # they are ahead of whatever comes back
        lost = self.bench.batcher.gone(worker, self.bench.now, unread=unread)
        if unread:
            assert lost.failed == []
            self.waiting[taken:taken] = [job for job in ran if not job.cancelled]
        else:
            assert lost.failed == ran
        self.absorb(list(lost.actions))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(job)
        self.absorb(list(self.bench.batcher.cancel(job, self.bench.now)))

    @rule(seconds=st.floats(0.0, 2.0))
    def time_passes(self, seconds: float) -> None:
        until = self.bench.now + seconds
        while self.bench.wakes and self.bench.wakes[0] <= until:
            self.bench.now = max(self.bench.now, heapq.heappop(self.bench.wakes))
            self.absorb(list(self.bench.batcher.tick(self.bench.now)))
        self.bench.now = until

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        idle = self.alive - self.running.keys()
        if self.waiting and idle:
            assert self.bench.wakes, "jobs wait, a worker is free, and no wake-up is due"

    @invariant()
    def counts_agree(self) -> None:
        forming = self.bench.batcher._forming
        assert self.bench.batcher.waiting + (len(forming.jobs) if forming else 0) == len(self.waiting)
        assert self.bench.batcher.idle == (not self.waiting and not self.running)


BatcherMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestBatcher = BatcherMachine.TestCase
