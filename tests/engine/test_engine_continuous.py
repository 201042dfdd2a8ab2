"""The scheduler of continuous batching: the batches that clients of TorchServe observe, and what must hold whatever
happens.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelserver.engine.continuous import ContinuousScheduler
from modelserver.engine.job import Job, Place
from modelserver.engine.scheduler import Action, NotAccepted, Send, Wake, Withdraw
from modelserver.errors import Cause
from modelserver.wire.frames import DESCRIBE, EXPLAIN, PREDICT, Request


def make_job(name: str, kind: int = PREDICT, size: int = 0) -> Job:
    made = Job(Request(name, [], [], {}), "m", "default", 0.0, lambda _: None, kind)
    made.size = size
    return made


def names(jobs: Sequence[Job]) -> str:
    return "".join(one.request.id for one in jobs)


@dataclass
class Bench:
    """A scheduler on a virtual clock, whose workers take `step` seconds over a batch; a job goes on for so many steps
    as its name says: `a3`.
    """

    scheduler: ContinuousScheduler
    step: float = 0.3
    now: float = 0.0
    sent: list[tuple[int, str, int]] = field(default_factory=list)  # worker, first letters, how many are continued
    due: list[tuple[float, int, int]] = field(default_factory=list)  # moment, worker, batch
    wakes: list[float] = field(default_factory=list)
    left: dict[Job, int] = field(default_factory=dict)

    def act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                letters = "".join(one.request.id[0] for one in action.jobs)
                self.sent.append((action.worker, letters, action.continued))
                heapq.heappush(self.due, (self.now + self.step, action.worker, action.batch))
            elif isinstance(action, Wake):
                heapq.heappush(self.wakes, action.at)

    def advance(self, to: float) -> None:
        while moments := [at for at in [*self.wakes[:1], *(due[0] for due in self.due[:1])] if at <= to]:
            self.now = min(moments)
            if self.wakes and self.wakes[0] <= self.now:
                heapq.heappop(self.wakes)
                self.act(self.scheduler.tick(self.now))
            else:
                _, worker, batch = heapq.heappop(self.due)
                self.answer(worker, batch)
        self.now = to

    def answer(self, worker: int, batch: int) -> None:
        jobs = self.scheduler.running(worker, batch)
        for one in jobs:
            self.left[one] -= 1
        going_on = {one for one in jobs if self.left[one] > 0}
        self.act(self.scheduler.reply(worker, batch, self.now, going_on=going_on))

    def add(self, at: float, name: str, kind: int = PREDICT) -> Job:
        self.advance(at)
        one = make_job(name, kind)
        self.left[one] = int(name[1:] or 1)
        self.act(self.scheduler.add(one, self.now))
        return one

    def ready(self, *workers: int) -> None:
        for worker in workers:
            self.act(self.scheduler.ready(worker, self.now))

    @property
    def batches(self) -> list[str]:
        """The letters of the jobs of each batch."""
        return [letters for _, letters, _ in self.sent]


def bench(
    batch_size: int = 3, max_delay: float = 0.1, capacity: int = 100, workers: int = 1, *, tickets: bool = False
) -> Bench:
    made = Bench(
        ContinuousScheduler(
            batch_size=batch_size, max_delay=max_delay, capacity=capacity, max_bytes=1000, tickets=tickets
        )
    )
    made.ready(*range(workers))
    return made


def test_the_batches_that_torchserve_is_seen_to_make() -> None:
    b = bench(max_delay=0.25)
    for at, name in [(0.0, "A6"), (0.5, "B3"), (0.57, "C3"), (0.6, "D3")]:
        b.add(at, name)
    b.advance(10.0)
    assert b.batches == ["A", "AB", "ABC", "ABC", "ACD", "AD", "D"]
    assert [continued for _, _, continued in b.sent] == [0, 1, 2, 3, 2, 2, 1]
    assert b.scheduler.idle and not b.scheduler.busy(0)


def test_a_set_begins_like_any_batch() -> None:
    b = bench(max_delay=0.1)
    b.add(0.0, "a2")
    b.add(0.05, "b1")
    assert b.sent == []
    b.advance(0.1)
    assert b.batches == ["ab"]


def test_a_full_set_begins_at_once() -> None:
    b = bench(batch_size=2, max_delay=9.0)
    b.add(0.0, "a1")
    b.add(0.0, "b1")
    assert b.batches == ["ab"]


def test_free_places_are_filled_without_delay() -> None:
    b = bench(batch_size=2, max_delay=9.0)
    for name in ("a1", "b3", "c3", "d1"):
        b.add(0.0, name)
    b.advance(1.0)
    assert b.batches == ["ab", "bc", "bc", "cd"]


def test_an_idle_worker_comes_before_one_that_runs() -> None:
    b = bench(max_delay=0.0, workers=2)
    b.add(0.0, "a9")
    b.add(0.1, "b9")
    assert [(worker, letters) for worker, letters, _ in b.sent] == [(0, "a"), (1, "b")]


def test_a_worker_takes_no_more_than_its_share_at_first() -> None:
    b = bench(batch_size=8, max_delay=0.0, workers=2)
    for name in ("a9", "b9", *(f"{letter}9" for letter in "cdefghij")):
        b.add(0.0, name)
    b.advance(0.3)
    assert [letters for _, letters, _ in b.sent[2:]] == ["acdef", "bghij"]


def test_what_the_others_do_not_take_is_taken_after_the_next_step() -> None:
    b = bench(batch_size=4, max_delay=0.0, workers=2)
    b.add(0.0, "a9")
    b.add(0.0, "b9")
    b.due.pop()  # the second worker is busy for ever
    b.add(0.1, "c9")
    b.add(0.1, "d9")
    b.advance(0.65)
    assert b.batches == ["a", "b", "ac", "acd"]


def test_a_describe_call_has_its_turn_between_two_steps() -> None:
    b = bench(max_delay=0.0)
    b.add(0.0, "a3")
    for name in "xyz":
        b.add(0.1, name, DESCRIBE)
    b.add(0.1, "b1")
    b.advance(10.0)
    assert b.batches == ["a", "x", "a", "y", "a", "z", "b"]
    assert [continued for _, _, continued in b.sent] == [0, 0, 1, 0, 1, 0, 0]


def test_a_describe_call_finds_an_idle_worker_at_once() -> None:
    b = bench(max_delay=9.0, workers=2)
    b.add(0.0, "a9")
    b.advance(9.0)
    b.add(9.0, "x", DESCRIBE)
    assert b.sent[-1] == (1, "x", 0)


def test_a_set_holds_one_kind_and_another_one_is_not_passed_by() -> None:
    b = bench(max_delay=0.0)
    b.add(0.0, "a3")
    b.add(0.1, "e2", EXPLAIN)
    b.add(0.1, "b1")
    b.advance(10.0)
    assert b.batches == ["a", "a", "a", "e", "e", "b"]


def test_who_leaves_is_missing_in_the_next_step() -> None:
    b = bench(max_delay=0.0)
    for name in ("a9", "b9"):
        b.add(0.0, name)
    one = b.add(0.0, "c9")
    b.advance(0.3)
    assert b.batches == ["a", "abc"]
    assert b.scheduler.cancel(one, b.now) == [Withdraw(0, 2, one)]
    b.advance(0.6)
    assert b.batches[-1] == "ab" and one.place is Place.DONE


def test_who_leaves_while_a_describe_call_has_its_turn_is_missing_too() -> None:
    b = bench(max_delay=0.0)
    first = b.add(0.0, "a9")
    b.add(0.1, "b9")
    b.advance(0.3)
    b.add(0.4, "x", DESCRIBE)
    b.advance(0.7)
    assert b.batches == ["a", "ab", "x"]
    assert b.scheduler.cancel(first, b.now) == ()
    b.advance(1.0)
    assert b.sent[-1] == (0, "b", 1)


def test_the_last_one_leaves_while_a_describe_call_has_its_turn() -> None:
    b = bench(max_delay=0.0)
    first = b.add(0.0, "a9")
    b.add(0.1, "x", DESCRIBE)
    b.advance(0.4)
    b.scheduler.cancel(first, b.now)
    b.advance(1.0)
    assert b.batches == ["a", "x"] and b.scheduler.idle


def test_a_dead_worker_takes_its_whole_set_with_it() -> None:
    b = bench(max_delay=0.0, workers=1)
    jobs = [b.add(0.0, "a9"), b.add(0.1, "b9")]
    b.advance(0.4)
    b.add(0.5, "c1")
    assert b.scheduler.gone(0, b.now).failed == jobs
    assert b.scheduler.waiting == 1


def test_what_a_dead_worker_had_not_read_waits_again_but_for_what_it_alone_knew() -> None:
    b = bench(max_delay=0.0, workers=1)
    first = b.add(0.0, "a9")
    b.add(0.1, "b1")
    b.add(0.1, "c1")
    b.advance(0.4)
    assert b.sent[-1] == (0, "abc", 1)
    assert b.scheduler.gone(0, b.now, unread=1).failed == [first]
    b.due.clear()
    b.ready(1)
    assert b.sent[-1] == (1, "bc", 0)


def test_an_unread_describe_call_waits_again_and_the_set_is_lost() -> None:
    b = bench(max_delay=0.0, workers=1)
    first = b.add(0.0, "a9")
    b.add(0.1, "x", DESCRIBE)
    b.advance(0.4)
    assert b.scheduler.gone(0, b.now, unread=1).failed == [first]
    assert b.scheduler.waiting == 1


def test_a_retired_worker_finishes_its_set_and_gets_nothing_new() -> None:
    b = bench(max_delay=0.0)
    b.add(0.0, "a3")
    b.act(b.scheduler.retire(0, 0.1))
    b.add(0.1, "b1")
    b.add(0.1, "x", DESCRIBE)
    b.advance(10.0)
    assert b.batches == ["a", "a", "a"]
    assert not b.scheduler.busy(0) and b.scheduler.waiting == 2
    b.ready(1)
    b.advance(20.0)
    assert b.batches[3:] == ["b", "x"]


def test_a_ticket_is_a_free_place() -> None:
    b = bench(batch_size=2, max_delay=0.0, tickets=True)
    b.add(0.0, "a9")
    b.add(0.0, "b9")
    with pytest.raises(NotAccepted) as refused:
        b.add(0.0, "c1")
    assert refused.value.cause is Cause.NO_TICKET
    b.advance(0.3)
    with pytest.raises(NotAccepted):
        b.add(0.3, "c1")


def test_running_jobs_need_no_place_in_the_queue() -> None:
    b = bench(batch_size=2, max_delay=0.0, capacity=1)
    b.add(0.0, "a9")
    b.add(0.0, "b9")
    with pytest.raises(NotAccepted, match="1 requests wait already"):
        b.add(0.0, "c9")
    b.advance(0.3)
    b.add(0.3, "c9")
    with pytest.raises(NotAccepted):
        b.add(0.3, "d9")


def test_an_answer_to_a_batch_that_nobody_has_changes_nothing() -> None:
    b = bench(max_delay=0.0)
    b.add(0.0, "a9")
    assert b.scheduler.reply(0, 77, 0.1) == ()
    assert b.scheduler.busy(0)


@dataclass
class World:
    """What should be where."""

    scheduler: ContinuousScheduler
    size: int
    alive: set[int] = field(default_factory=set)
    retired: set[int] = field(default_factory=set)  # with a set still
    sent: dict[int, Send] = field(default_factory=dict)  # by worker, unanswered
    sets: dict[int, list[Job]] = field(default_factory=dict)  # by worker, that go on
    waiting: list[Job] = field(default_factory=list)  # and forming
    jobs: list[Job] = field(default_factory=list)
    over: list[Job] = field(default_factory=list)
    described: dict[int, bool] = field(default_factory=dict)  # whether the last batch of a worker was a describe call
    now: float = 0.0

    def act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.take(action)

    def take(self, send: Send) -> None:
        worker, jobs = send.worker, list(send.jobs)
        assert worker not in self.sent, "a second batch for a busy worker"
        assert jobs and len(jobs) <= self.size and len({one.kind for one in jobs}) == 1
        fresh = jobs[send.continued :]
        going_on = [one for one in self.sets.get(worker, []) if not one.cancelled]
        if jobs[0].kind == DESCRIBE:
            assert len(jobs) == 1 and not send.continued
            assert not (self.described.get(worker) and going_on), "a set waits for its next step"
        else:
            assert jobs[: send.continued] == going_on
            self.sets[worker] = []
        assert worker in self.alive or not fresh
        assert self.waiting[: len(fresh)] == fresh, "first come, first served"
        del self.waiting[: len(fresh)]
        self.described[worker] = jobs[0].kind == DESCRIBE
        self.sent[worker] = send._replace(jobs=jobs)

    def finish(self, jobs: Sequence[Job]) -> None:
        self.over += [one for one in jobs if not one.cancelled]

    def answer(self, worker: int, going_on: set[Job]) -> None:
        send = self.sent.pop(worker)
        assert self.scheduler.running(worker, send.batch) == send.jobs
        if send.jobs[0].kind == DESCRIBE:
            going_on = set()
        else:
            self.sets[worker] = [one for one in send.jobs if one in going_on and not one.cancelled]
        self.finish([one for one in send.jobs if one not in going_on])
        self.act(self.scheduler.reply(worker, send.batch, self.now, going_on=going_on))
        if worker not in self.sent:
            self.retired.discard(worker)


class Whatever(RuleBasedStateMachine):
    """Every job is in one place at a time, and comes out once."""

    SIZE = 3

    def __init__(self) -> None:
        super().__init__()
        scheduler = ContinuousScheduler(batch_size=self.SIZE, max_delay=1.0, capacity=5, max_bytes=10_000)
        self.world = World(scheduler, self.SIZE)

    @rule(kind=st.sampled_from((PREDICT, PREDICT, EXPLAIN, DESCRIBE)))
    def add(self, kind: int) -> None:
        world = self.world
        one = make_job(f"{len(world.jobs)},", kind, size=1)
        world.waiting.append(one)
        try:
            actions = world.scheduler.add(one, world.now)
        except NotAccepted:
            world.waiting.pop()
            assert world.scheduler.waiting >= 5
        else:
            world.jobs.append(one)
            world.act(actions)

    @rule(worker=st.integers(0, 3))
    def ready(self, worker: int) -> None:
        world = self.world
        if worker not in world.alive and worker not in world.retired:
            world.alive.add(worker)
            world.act(world.scheduler.ready(worker, world.now))

    @precondition(lambda self: self.world.sent)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.world.sent)))
        jobs = self.world.sent[worker].jobs
        chosen = data.draw(st.lists(st.booleans(), min_size=len(jobs), max_size=len(jobs)))
        self.world.answer(worker, {one for one, goes_on in zip(jobs, chosen, strict=True) if goes_on})

    @precondition(lambda self: self.world.alive | self.world.retired)
    @rule(data=st.data(), unread=st.integers(0, 1))
    def die(self, data: st.DataObject, unread: int) -> None:
        world = self.world
        worker = data.draw(st.sampled_from(sorted(world.alive | world.retired)))
        world.alive.discard(worker)
        world.retired.discard(worker)
        send = world.sent.pop(worker, None)
        jobs, continued = (send.jobs, send.continued) if send else ([], 0)
        fresh = jobs[continued:]
        failed = [*jobs[:continued], *(one for one in world.sets.pop(worker, []) if not one.cancelled)]
        if unread:
            forming = world.scheduler._forming  # of another worker: it leaves first
            first = len(forming.jobs) if forming else 0
            world.waiting[first:first] = [one for one in fresh if not one.cancelled]
        else:
            failed += fresh
        lost = world.scheduler.gone(worker, world.now, unread=unread)
        assert sorted(names([one]) for one in lost.failed) == sorted(names([one]) for one in failed)
        world.finish(failed)
        world.described.pop(worker, None)
        world.act(lost.actions)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        world = self.world
        worker = data.draw(st.sampled_from(sorted(world.alive)))
        world.alive.discard(worker)
        if worker in world.sent:
            world.retired.add(worker)
        world.act(world.scheduler.retire(worker, world.now))

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        world = self.world
        one = data.draw(st.sampled_from(world.jobs))
        if not one.cancelled and one not in world.over:
            if one in world.waiting:
                world.waiting.remove(one)
            world.act(world.scheduler.cancel(one, world.now))

    @rule(seconds=st.sampled_from((0.1, 1.0)))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.act(self.world.scheduler.tick(self.world.now))

    @rule()
    def clear(self) -> None:
        world = self.world
        assert world.scheduler.clear() == world.waiting
        world.finish(world.waiting)
        world.waiting.clear()

    @invariant()
    def nothing_is_lost(self) -> None:
        world = self.world
        running = {one for send in world.sent.values() for one in send.jobs}
        running |= {one for jobs in world.sets.values() for one in jobs}
        assert len(set(world.over)) == len(world.over)
        assert not set(world.over) & {*running, *world.waiting}
        assert all(one in running or one in world.waiting or one in world.over or one.cancelled for one in world.jobs)
        forming = world.scheduler._forming.jobs if world.scheduler._forming else []
        assert world.scheduler.waiting + len(forming) == len(world.waiting)
        assert world.scheduler.idle == (not world.sent and not world.waiting)
        assert all(world.scheduler.busy(worker) == (worker in world.sent) for worker in range(4))

    @invariant()
    def no_set_stands_still(self) -> None:
        world = self.world
        assert all(
            worker in world.sent for worker, jobs in world.sets.items() if any(not one.cancelled for one in jobs)
        )

    @invariant()
    def nothing_waits_for_an_idle_worker(self) -> None:
        world = self.world
        forming = world.scheduler._forming
        if world.alive - set(world.sent) - ({forming.worker} if forming else set()):
            assert not world.scheduler.waiting

    def teardown(self) -> None:
        """Whatever has happened, all that is left is served as soon as there is a worker."""
        world = self.world
        for _ in range(100):
            if world.scheduler.idle:
                break
            if not world.alive:
                self.ready(next(worker for worker in range(9) if worker not in world.retired))
            self.wait(1.0)
            for worker in list(world.sent):
                world.answer(worker, set())
        assert world.scheduler.idle
        assert all(one in world.over or one.cancelled for one in world.jobs)


TestWhatever = Whatever.TestCase
TestWhatever.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
