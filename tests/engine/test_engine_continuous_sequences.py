"""The scheduler of stateful models with continuous batching: what it sends where, and what must hold whatever
happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelserver.engine.continuous_sequences import ContinuousSequenceScheduler
from modelserver.engine.job import Job, Membership
from modelserver.engine.scheduler import Action, NotAccepted, Refuse, Send, Wake, Withdraw
from modelserver.engine.sequence_book import SequenceBook
from modelserver.errors import Cause
from modelserver.wire.frames import DESCRIBE, EXPLAIN, PREDICT, Request


def make_job(name: str, kind: int = PREDICT) -> Job:
    """Its sequence is the first letter of its name."""
    made = Job(Request(name, [], [], {}), "m", "default", 0.0, lambda _: None, kind)
    made.size = 1
    made.sequence = None if kind == DESCRIBE else Membership(name[0])
    return made


def scheduler(
    *,
    most: int = 9,
    queue: int = 9,
    batch_size: int = 2,
    max_delay: float = 0.0,
    workers: int = 1,
    max_idle: float = 0.0,
    max_life: float = 0.0,
    tickets: bool = False,
) -> ContinuousSequenceScheduler:
    made = ContinuousSequenceScheduler(
        book=SequenceBook(most=most, queue=queue, max_idle=max_idle, max_life=max_life),
        batch_size=batch_size,
        max_delay=max_delay,
        capacity=5,
        max_bytes=1000,
        tickets=tickets,
    )
    for worker in range(workers):
        made.ready(worker, 0.0)
    return made


def sends(actions: Sequence[Action]) -> list[tuple[int, str, int]]:
    """Worker, names of the jobs and number of continued ones of each batch that is sent."""
    found = [action for action in actions if isinstance(action, Send)]
    return [(send.worker, names(send.jobs), send.continued) for send in found]


def names(jobs: Sequence[Job]) -> str:
    return " ".join(one.request.id for one in jobs)


def add(s: ContinuousSequenceScheduler, text: str, now: float = 0.0) -> list[tuple[int, str, int]]:
    """What is sent for these jobs; one whose name ends with `?` is a describe job."""
    kinds = [(name, DESCRIBE if name.endswith("?") else PREDICT) for name in text.split()]
    return [sent for name, kind in kinds for sent in sends(s.add(make_job(name, kind), now))]


def step(
    s: ContinuousSequenceScheduler, over: str = "", worker: int = 0, now: float = 0.0
) -> list[tuple[int, str, int]]:
    """What is sent when the batch of a worker is answered, in which these jobs are over."""
    record = s._workers[worker]
    going_on = {one for one in record.running if one.request.id not in over.split()}
    return sends(s.reply(worker, record.batch, now, going_on=going_on))


def test_the_next_request_joins_while_the_one_before_goes_on() -> None:
    s = scheduler()
    assert add(s, "a1") == [(0, "a1", 0)]
    assert add(s, "a2 a3") == []
    assert step(s) == [(0, "a1 a2", 1)]
    assert step(s, "a2") == [(0, "a1 a3", 1)]
    assert step(s, "a1 a3") == []
    assert s.idle and len(s.book) == 1


def test_a_step_has_one_new_request_of_a_sequence() -> None:
    s = scheduler(batch_size=3)
    add(s, "x1 a1 a2 b1 b2")
    assert step(s) == [(0, "x1 a1 b1", 1)]
    assert step(s) == [(0, "x1 a1 b1 a2 b2", 3)]


def test_new_sequences_leave_places_to_those_that_are_inside() -> None:
    s = scheduler(batch_size=2)
    add(s, "a1 b1 c1")
    assert step(s) == [(0, "a1 b1", 1)]
    add(s, "a2")
    assert step(s) == [(0, "a1 b1 a2", 2)]
    add(s, "a3 b2")
    assert step(s) == [(0, "a1 b1 a2 a3", 3)]
    assert step(s) == [(0, "a1 b1 a2 a3", 4)], "twice the batch size"
    assert step(s, "a1 a2 a3") == [(0, "b1 c1 b2", 1)]


def test_a_set_begins_like_any_batch_of_sequences() -> None:
    s = scheduler(batch_size=3, max_delay=1.0)
    assert add(s, "a1 a2 b1") == []
    assert sends(s.tick(1.0)) == [(0, "a1 b1", 0)]
    assert step(s) == [(0, "a1 b1 a2", 2)]


def test_a_sequence_stays_with_its_worker_and_new_ones_are_shared() -> None:
    s = scheduler(workers=2, most=4)
    assert add(s, "a1 b1 c1 d1") == [(0, "a1", 0), (1, "b1", 0)]
    assert step(s, worker=0) == [(0, "a1 c1", 1)]
    assert step(s, worker=1) == [(1, "b1 d1", 1)]
    add(s, "b2 c2")
    assert step(s, worker=0) == [(0, "a1 c1 c2", 2)]
    assert step(s, worker=1) == [(1, "b1 d1 b2", 2)]


def test_another_kind_waits_for_the_end_of_the_set_but_not_who_is_inside() -> None:
    s = scheduler(batch_size=3)
    add(s, "a1")
    s.add(make_job("b1", EXPLAIN), 0.0)
    add(s, "c1 a2")
    assert step(s) == [(0, "a1 a2", 1)]
    assert step(s, "a1 a2") == [(0, "b1", 0)]
    assert step(s, "b1") == [(0, "c1", 0)]


def test_a_describe_job_comes_between_two_steps() -> None:
    s = scheduler()
    add(s, "a1 ?? ??")
    assert step(s) == [(0, "??", 0)]
    assert step(s) == [(0, "a1", 1)]
    assert step(s) == [(0, "??", 0)]
    assert step(s) == [(0, "a1", 1)]


def test_who_leaves_is_missing_in_the_next_step() -> None:
    s = scheduler()
    first, second = make_job("a1"), make_job("a2")
    s.add(first, 0.0)
    s.add(second, 0.0)
    step(s)
    assert s.cancel(first, 0.0) == [Withdraw(0, 2, first)]
    assert step(s) == [(0, "a2", 1)]
    add(s, "??")
    assert step(s) == [(0, "??", 0)]
    assert not s.cancel(second, 0.0)
    assert step(s) == [] and s.idle


def test_who_leaves_while_a_describe_call_has_its_turn_is_idle_from_then_on() -> None:
    s = scheduler(max_idle=5.0)
    leaving = make_job("a1")
    s.add(leaving, 0.0)
    s.add(make_job("??", DESCRIBE), 0.0)
    assert step(s) == [(0, "??", 0)]
    s.cancel(leaving, 4.0)
    s.tick(8.9)
    assert s.book.find("a") is not None
    s.tick(9.0)
    assert s.book.find("a") is None


def test_a_long_line_holds_up_nobody_who_is_inside() -> None:
    s = scheduler(most=50)
    add(s, "a1")
    add(s, " ".join(f"{letter}1" for letter in "bcdefghijklmnopqrstuvwxyz"))
    add(s, "a2")
    assert step(s) == [(0, "a1 b1 a2", 1)]
    add(s, "b2 a3")
    assert step(s) == [(0, "a1 b1 a2 b2", 3)], "four places"
    assert step(s, "a1 b1 a2 b2") == [(0, "c1 d1", 0)], "the others have waited for longer"


def test_an_ended_sequence_makes_room_while_its_last_request_goes_on() -> None:
    s = scheduler(most=1)
    add(s, "a1")
    with pytest.raises(NotAccepted):
        add(s, "b1")
    s.end(["a"], 0.0)
    assert add(s, "b1") == []
    assert step(s) == [(0, "a1", 1)], "a batch has as many places as there may be sequences"
    assert step(s, "a1") == [(0, "b1", 0)]


def test_a_sequence_that_streams_is_not_idle() -> None:
    s = scheduler(max_idle=5.0)
    add(s, "a1")
    for now in (4.0, 8.0, 12.0):
        assert step(s, now=now) == [(0, "a1", 1)]
    step(s, "a1", now=13.0)
    assert s.book.find("a") is not None
    s.tick(18.0)
    assert s.book.find("a") is None


def test_a_dead_worker_takes_its_sequences_with_it() -> None:
    s = scheduler()
    add(s, "a1 b1 a2")
    step(s)
    add(s, "a3")
    lost = s.gone(0, 0.0)
    assert names(lost.failed) == "a1 b1 a2"
    assert [action.job.request.id for action in lost.actions if isinstance(action, Refuse)] == ["a3"]
    assert not s._sequences and s.idle


def test_an_unread_step_is_lost_but_for_sequences_that_were_not_begun() -> None:
    s = scheduler()
    add(s, "a1 b1 a2")
    assert step(s) == [(0, "a1 b1 a2", 1)]
    lost = s.gone(0, 0.0, unread=1)
    assert names(lost.failed) == "a1"
    assert [action.job.request.id for action in lost.actions if isinstance(action, Refuse)] == ["a2"]
    assert sends(s.ready(1, 0.0)) == [(1, "b1", 0)]


def test_a_retired_worker_finishes_its_set_and_what_was_accepted() -> None:
    s = scheduler()
    add(s, "a1 b1 a2")
    step(s)
    s.retire(0, 0.0)
    assert s.book.find("a") is None
    add(s, "c1 a3 ??")
    assert step(s, "a1") == [(0, "b1 a2", 2)]
    assert s.book.find("b") is None
    assert step(s, "a2") == [(0, "b1", 1)]
    assert step(s, "b1") == []
    assert not s.busy(0)
    assert sends(s.ready(1, 0.0)) == [(1, "c1 a3", 0)]


def test_tickets_are_free_places() -> None:
    s = scheduler(batch_size=1, tickets=True)
    add(s, "a1")
    for name, cause in (("b1", Cause.NO_TICKET), ("a2", None), ("a3", Cause.NO_TICKET)):
        if cause is None:
            add(s, name)
            continue
        with pytest.raises(NotAccepted) as refused:
            add(s, name)
        assert refused.value.cause is cause
    assert step(s) == [(0, "a1 a2", 1)]
    with pytest.raises(NotAccepted):
        add(s, "a3")


@dataclass
class World:
    """What should be where."""

    scheduler: ContinuousSequenceScheduler
    size: int
    alive: set[int] = field(default_factory=set)
    retired: set[int] = field(default_factory=set)
    sent: dict[int, Send] = field(default_factory=dict)  # by worker, unanswered
    sets: dict[int, list[Job]] = field(default_factory=dict)  # by worker, that go on
    served: dict[object, int] = field(default_factory=dict)  # sequence -> number of its last job
    homes: dict[object, int] = field(default_factory=dict)  # sequence -> its worker
    described: set[int] = field(default_factory=set)  # workers whose last batch was a describe job
    jobs: list[Job] = field(default_factory=list)
    over: list[Job] = field(default_factory=list)
    now: float = 0.0

    def act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.take(action)
            elif isinstance(action, Refuse):
                self.over.append(action.job)
            elif isinstance(action, Wake):
                assert action.at >= self.now

    def take(self, send: Send) -> None:
        worker, jobs = send.worker, list(send.jobs)
        assert worker in self.alive | self.retired and worker not in self.sent
        assert jobs and len({one.kind for one in jobs}) == 1
        going_on = [one for one in self.sets.get(worker, []) if not one.cancelled]
        fresh = jobs[send.continued :]
        if jobs[0].kind == DESCRIBE:
            assert len(jobs) == 1 and not send.continued and worker in self.alive
            assert not (worker in self.described and going_on)
            self.described.add(worker)
        else:
            assert jobs[: send.continued] == going_on
            assert len(jobs) <= 2 * self.size
            self.described.discard(worker)
            self.sets[worker] = []
            self.check_fresh(worker, going_on, fresh)
        self.sent[worker] = send._replace(jobs=jobs)

    def check_fresh(self, worker: int, going_on: list[Job], fresh: list[Job]) -> None:
        sequences = [self.scheduler._sequences[one] for one in fresh]
        assert len(set(sequences)) == len(sequences)
        inside = {self.scheduler._sequences[one] for one in going_on}
        newcomers = [one for one in sequences if one not in inside]
        assert not newcomers or len(going_on) + len(newcomers) <= self.size
        for one, sequence in zip(fresh, sequences, strict=True):
            assert self.homes.setdefault(sequence, worker) == worker
            number = int(one.request.id[1:])
            assert self.served.get(sequence, -1) < number, "the order within a sequence"
            self.served[sequence] = number

    def finish(self, jobs: Sequence[Job]) -> None:
        self.over += [one for one in jobs if not one.cancelled]

    def answer(self, worker: int, going_on: set[Job]) -> None:
        send = self.sent.pop(worker)
        assert self.scheduler.running(worker, send.batch) == send.jobs and self.scheduler.busy(worker)
        if send.jobs[0].kind == DESCRIBE:
            self.finish(send.jobs)
        else:
            self.sets[worker] = [one for one in send.jobs if one in going_on and not one.cancelled]
            self.finish([one for one in send.jobs if one not in going_on])
        self.act(self.scheduler.reply(worker, send.batch, self.now, going_on=going_on))
        if worker in self.retired and not self.scheduler.busy(worker):
            self.retired.discard(worker)
            assert self.scheduler.gone(worker, self.now).failed == []


class Whatever(RuleBasedStateMachine):
    """Every job comes out once, those of a sequence begin in their order, and no set stands still."""

    SIZE = 2

    def __init__(self) -> None:
        super().__init__()
        made = scheduler(most=4, queue=3, max_idle=2.0, max_life=9.0, batch_size=self.SIZE, max_delay=1.0, workers=0)
        self.world = World(made, self.SIZE)

    @rule(id=st.sampled_from("abcdef"), kind=st.sampled_from((PREDICT, PREDICT, PREDICT, EXPLAIN, DESCRIBE)))
    def add(self, id: str, kind: int) -> None:
        world = self.world
        one = make_job(f"{id}{len(world.jobs)}", kind)
        try:
            actions = world.scheduler.add(one, world.now)
        except NotAccepted:
            pass
        else:
            world.jobs.append(one)
            world.act(actions)

    @rule(worker=st.integers(0, 2))
    def ready(self, worker: int) -> None:
        world = self.world
        if worker not in world.alive | world.retired:
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
        lost = [*jobs[:continued], *(one for one in world.sets.pop(worker, []) if not one.cancelled)]
        if not unread:
            lost += jobs[continued:]
        for sequence in [one for one, home in world.homes.items() if home == worker]:
            del world.homes[sequence]  # those that were not begun may move
            if unread and not sequence.begun:  # type: ignore[attr-defined]
                world.served.pop(sequence, None)
        told = world.scheduler.gone(worker, world.now, unread=unread)
        assert {one for one in told.failed if not one.cancelled} == {one for one in lost if not one.cancelled}
        world.finish(told.failed)
        world.described.discard(worker)
        world.act(told.actions)
        assert not world.scheduler.book.of(worker)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        world = self.world
        worker = data.draw(st.sampled_from(sorted(world.alive)))
        world.alive.discard(worker)
        world.retired.add(worker)
        world.act(world.scheduler.retire(worker, world.now))
        if not world.scheduler.busy(worker):
            world.retired.discard(worker)
            world.scheduler.gone(worker, world.now)

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.world.jobs))
        if not one.cancelled and one not in self.world.over:
            self.world.act(self.world.scheduler.cancel(one, self.world.now))

    @rule(seconds=st.sampled_from((0.1, 1.0, 3.0)))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.act(self.world.scheduler.tick(self.world.now))

    @rule(id=st.sampled_from("abcdef"))
    def end(self, id: str) -> None:
        self.world.act(self.world.scheduler.end([id], self.world.now))

    @rule()
    def clear(self) -> None:
        self.world.finish(self.world.scheduler.clear())

    @invariant()
    def nothing_is_lost(self) -> None:
        world = self.world
        running = {one for send in world.sent.values() for one in send.jobs}
        running |= {one for jobs in world.sets.values() for one in jobs}
        assert len(set(world.over)) == len(world.over)
        assert not set(world.over) & running
        elsewhere = [one for one in world.jobs if one not in world.over and one not in running and not one.cancelled]
        forming = [one for worker in world.scheduler._workers.values() for one in worker.forming]
        assert len(elsewhere) == world.scheduler.waiting + len(forming)
        assert world.scheduler._held == world.scheduler.waiting
        assert world.scheduler.idle == (not world.sent and not elsewhere)
        known = {one for one in world.scheduler._sequences if not one.cancelled}
        assert known <= {*elsewhere, *running}

    @invariant()
    def no_set_stands_still(self) -> None:
        for worker, jobs in self.world.sets.items():
            assert worker in self.world.sent or all(one.cancelled for one in jobs)

    @invariant()
    def nothing_waits_that_could_run(self) -> None:
        s = self.world.scheduler
        for worker in s._workers.values():
            if not worker.running:
                assert not worker.ready
                assert worker.retired or worker.forming or not s._plain
                assert not worker.forming or worker.due >= self.world.now
        assert not s._unbound or s._taker() is None

    def teardown(self) -> None:
        """Whatever has happened, all that is left comes to its end as soon as there is a worker."""
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
