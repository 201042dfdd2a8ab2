"""The scheduler of asynchronous workers: what it sends where, and what must hold whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelserver.engine.concurrent import ConcurrentScheduler
from modelserver.engine.job import Job
from modelserver.engine.scheduler import Action, NotAccepted, Send, Wake, Withdraw
from modelserver.errors import Cause
from modelserver.wire.frames import DESCRIBE, EXPLAIN, PREDICT, Request


def job(name: str, kind: int = PREDICT, size: int = 0) -> Job:
    made = Job(Request(name, [], [], {}), "m", "default", 0.0, lambda _: None, kind)
    made.size = size
    return made


def scheduler(
    *, batch_size: int = 1, max_delay: float = 1.0, capacity: int = 100, max_bytes: int = 1000, workers: int = 1
) -> ConcurrentScheduler:
    made = ConcurrentScheduler(batch_size=batch_size, max_delay=max_delay, capacity=capacity, max_bytes=max_bytes)
    for worker in range(workers):
        made.ready(worker, 0.0)
    return made


def sends(actions: Sequence[Action]) -> list[tuple[int, str]]:
    """Worker and names of the jobs of each batch that is sent."""
    return [(send.worker, names(send.jobs)) for send in actions if isinstance(send, Send)]


def names(jobs: Sequence[Job]) -> str:
    return "".join(one.request.id for one in jobs)


def test_every_job_leaves_at_once() -> None:
    s = scheduler()
    assert [sends(s.add(job(name), 0.0)) for name in "abc"] == [[(0, "a")], [(0, "b")], [(0, "c")]]
    assert (s.waiting, s.busy(0), s.idle) == (0, True, False)


def test_the_worker_with_the_fewest_batches_gets_the_next_one() -> None:
    s = scheduler(workers=3)
    sent = [s.add(job(name), 0.0)[0] for name in "abcdef"]
    assert sends(sent) == [(0, "a"), (1, "b"), (2, "c"), (0, "d"), (1, "e"), (2, "f")]
    assert isinstance(sent[4], Send)
    s.reply(1, sent[4].batch, 0.0)
    assert sends(s.add(job("g"), 0.0)) == [(1, "g")]


def test_answers_come_in_any_order() -> None:
    s = scheduler()
    first, second = (action for name in "ab" for action in s.add(job(name), 0.0) if isinstance(action, Send))
    assert names(s.running(0, first.batch)) == "a"
    s.reply(0, second.batch, 0.0)
    assert (s.running(0, second.batch), names(s.running(0, first.batch))) == ([], "a")
    s.reply(0, first.batch, 0.0)
    assert s.idle and not s.busy(0)


def test_what_waits_for_a_worker_leaves_with_the_first_one() -> None:
    s = scheduler(workers=0)
    jobs = [job(name) for name in "abc"]
    assert [s.add(one, 0.0) for one in jobs] == [(), (), ()]
    s.cancel(jobs[1], 0.0)
    assert s.waiting == 2
    assert sends(s.ready(7, 0.0)) == [(7, "a"), (7, "c")]


def test_the_queue_is_bounded_while_there_is_no_worker() -> None:
    s = scheduler(workers=0, capacity=1)
    s.add(job("a"), 0.0)
    with pytest.raises(NotAccepted, match="1 requests wait already"):
        s.add(job("b"), 0.0)


def test_bodies_are_bounded_in_bytes_and_not_in_number() -> None:
    s = scheduler(capacity=1, max_bytes=1000)
    (send,) = s.add(job("a", size=900), 0.0)
    with pytest.raises(NotAccepted, match=r"900 bytes of requests are unanswered \(job_queue_bytes\)"):
        s.add(job("b", size=200), 0.0)
    assert isinstance(send, Send)
    s.reply(0, send.batch, 0.0)
    assert sends(s.add(job("c", size=5000), 0.0)) == [(0, "c")], "one that is too large for the bound is served alone"


def test_a_ticket_is_a_worker_that_has_loaded() -> None:
    s = ConcurrentScheduler(batch_size=1, max_delay=0.0, capacity=9, max_bytes=9, tickets=True)
    with pytest.raises(NotAccepted) as refused:
        s.add(job("a"), 0.0)
    assert refused.value.cause is Cause.NO_TICKET
    s.ready(0, 0.0)
    assert [sends(s.add(job(name), 0.0)) for name in "bc"] == [[(0, "b")], [(0, "c")]]


def test_batches_are_collected_for_the_delay() -> None:
    s = scheduler(batch_size=3)
    assert s.add(job("a"), 5.0) == [Wake(6.0)]
    assert s.add(job("b"), 5.9) == []
    assert s.tick(5.95) == [Wake(6.0)]
    assert sends(s.tick(6.0)) == [(0, "ab")]
    assert s.tick(7.0) == ()


def test_a_full_batch_leaves_and_the_next_is_collected_meanwhile() -> None:
    s = scheduler(batch_size=2, workers=2)
    actions = [action for name in "abcde" for action in s.add(job(name), 0.0)]
    assert sends(actions) == [(0, "ab"), (1, "cd")]
    assert sends(s.tick(1.0)) == [(0, "e")]


def test_another_kind_ends_a_batch_and_a_describe_call_travels_alone() -> None:
    s = scheduler(batch_size=9)
    s.add(job("a"), 0.0)
    assert sends(s.add(job("b", EXPLAIN), 0.0)) == [(0, "a")]
    assert sends(s.add(job("c", DESCRIBE), 0.0)) == [(0, "b"), (0, "c")]


def test_without_a_delay_nothing_is_collected() -> None:
    s = scheduler(batch_size=9, max_delay=0.0)
    assert [sends(s.add(job(name), 0.0)) for name in "ab"] == [[(0, "a")], [(0, "b")]]


def test_a_cancelled_job_is_withdrawn_from_its_worker() -> None:
    s = scheduler()
    one = job("a")
    (send,) = s.add(one, 0.0)
    assert isinstance(send, Send)
    assert s.cancel(one, 0.0) == [Withdraw(0, send.batch, one)]
    assert not s.idle, "the worker still has it"
    s.reply(0, send.batch, 0.0)
    assert s.idle


def test_a_cancelled_job_leaves_the_batch_that_forms() -> None:
    s = scheduler(batch_size=2)
    one = job("a")
    s.add(one, 0.0)
    s.cancel(one, 0.0)
    assert s.idle and s.tick(1.0) == ()
    assert sends([*s.add(job("b"), 2.0), *s.add(job("c"), 2.0)]) == [(0, "bc")]


def test_a_dead_worker_fails_all_that_it_had_and_leaves_the_rest_to_others() -> None:
    s = scheduler(workers=2)
    for name in "abcd":
        s.add(job(name), 0.0)
    lost = s.gone(0, 0.0)
    assert (names(lost.failed), lost.actions) == ("ac", [])
    assert sends(s.add(job("e"), 0.0)) == [(1, "e")]


def test_batches_that_a_dead_worker_never_read_go_to_another() -> None:
    s = scheduler(workers=2)
    for name in "abcdef":
        s.add(job(name), 0.0)
    lost = s.gone(0, 0.0, unread=2)
    assert (names(lost.failed), sends(lost.actions)) == ("a", [(1, "c"), (1, "e")])


def test_they_wait_in_their_order_where_there_is_no_other() -> None:
    s = scheduler(batch_size=2)
    jobs = [job(name) for name in "abcde"]
    for one in jobs:
        s.add(one, 0.0)
    s.cancel(jobs[2], 0.0)
    lost = s.gone(0, 0.0, unread=1)
    assert (names(lost.failed), s.waiting) == ("ab", 2)
    assert sends(s.ready(0, 9.0)) == [(0, "de")]


def test_a_retired_worker_keeps_what_it_has_and_gets_nothing_more() -> None:
    s = scheduler(batch_size=2)
    sent = [action for name in "abc" for action in s.add(job(name), 0.0) if isinstance(action, Send)]
    s.retire(0, 0.0)
    assert (s.busy(0), s.waiting, s.tick(1.0)) == (True, 1, ())
    s.reply(0, sent[0].batch, 1.0)
    assert not s.busy(0) and not s.idle
    assert names(s.clear()) == "c"
    assert s.idle


@dataclass
class World:
    """What should be where."""

    scheduler: ConcurrentScheduler
    alive: set[int] = field(default_factory=set)
    sent: dict[int, tuple[int, list[Job]]] = field(default_factory=dict)  # unanswered batch -> worker, jobs
    jobs: list[Job] = field(default_factory=list)
    over: list[Job] = field(default_factory=list)
    now: float = 0.0

    def act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                assert action.worker in self.alive and action.jobs and action.batch not in self.sent
                assert len({one.kind for one in action.jobs}) == 1
                self.sent[action.batch] = (action.worker, list(action.jobs))


class Whatever(RuleBasedStateMachine):
    """Every job is in one place at a time, and comes out once."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            ConcurrentScheduler(batch_size=3, max_delay=1.0, capacity=5, max_bytes=10_000),
        )

    @rule(kind=st.sampled_from((PREDICT, EXPLAIN, DESCRIBE)))
    def add(self, kind: int) -> None:
        world = self.world
        one = job(f"{len(world.jobs)},", kind, size=1)
        try:
            world.act(world.scheduler.add(one, world.now))
        except NotAccepted:
            assert not world.alive
        else:
            world.jobs.append(one)

    @rule(worker=st.integers(0, 3))
    def ready(self, worker: int) -> None:
        if worker not in self.world.alive and not self.world.scheduler.busy(worker):
            self.world.alive.add(worker)
            self.world.act(self.world.scheduler.ready(worker, self.world.now))

    @precondition(lambda self: self.world.sent)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(sorted(self.world.sent)))
        worker, jobs = self.world.sent.pop(batch)
        assert self.world.scheduler.running(worker, batch) == jobs
        self.world.over += jobs
        self.world.act(self.world.scheduler.reply(worker, batch, self.world.now))

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data(), unread=st.integers(0, 2))
    def die(self, data: st.DataObject, unread: int) -> None:
        world = self.world
        worker = data.draw(st.sampled_from(sorted(world.alive)))
        world.alive.discard(worker)
        had = [batch for batch, (owner, _) in sorted(world.sent.items()) if owner == worker]
        begun = had[: max(0, len(had) - unread)]
        failed = [one for batch in begun for one in world.sent[batch][1]]
        for batch in had:
            del world.sent[batch]
        world.over += failed
        lost = world.scheduler.gone(worker, world.now, unread=unread)
        assert lost.failed == failed
        world.act(lost.actions)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.world.alive)))
        self.world.alive.discard(worker)
        self.world.act(self.world.scheduler.retire(worker, self.world.now))

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.world.jobs))
        if not one.cancelled:
            self.world.act(self.world.scheduler.cancel(one, self.world.now))

    @rule(seconds=st.sampled_from((0.1, 1.0)))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.act(self.world.scheduler.tick(self.world.now))

    @rule()
    def clear(self) -> None:
        self.world.over += self.world.scheduler.clear()

    @invariant()
    def nothing_is_lost(self) -> None:
        world = self.world
        sent = [one for _, jobs in world.sent.values() for one in jobs]
        assert len(set(world.over)) == len(world.over)
        assert not set(world.over) & set(sent)
        elsewhere = [one for one in world.jobs if one not in world.over and one not in sent and not one.cancelled]
        assert len(elsewhere) == world.scheduler.waiting + len(world.scheduler._forming)
        assert world.scheduler._held == len(elsewhere) + len(sent)
        assert set(world.scheduler._sent) == set(sent)
        assert world.scheduler.idle == (not sent and not elsewhere)


TestWhatever = Whatever.TestCase
TestWhatever.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
