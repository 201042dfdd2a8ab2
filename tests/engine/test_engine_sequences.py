"""The scheduler of stateful models: what it sends where, and what must hold whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelserver.engine.job import Job, Membership
from modelserver.engine.scheduler import Action, Closed, NotAccepted, Opened, Refuse, Send, Wake, Withdraw
from modelserver.engine.sequence_book import SequenceBook
from modelserver.engine.sequence_scheduler import SequenceScheduler
from modelserver.errors import Cause
from modelserver.wire.frames import DESCRIBE, EXPLAIN, PREDICT, Request


def job(name: str, kind: int = PREDICT, size: int = 0) -> Job:
    """`a1` is a request of the sequence `a`."""
    made = Job(Request(name, [], [], {}), "m", "default", 0.0, lambda _: None, kind)
    made.size = size
    if kind != DESCRIBE:
        made.sequence = Membership(name[0])
    return made


def scheduler(
    *,
    most: int = 100,
    queue: int = 100,
    max_idle: float = 0.0,
    max_life: float = 0.0,
    batch_size: int = 1,
    max_delay: float = 0.0,
    capacity: int = 100,
    max_bytes: int = 1000,
    tickets: bool = False,
    workers: int = 1,
) -> SequenceScheduler:
    made = SequenceScheduler(
        book=SequenceBook(most=most, queue=queue, max_idle=max_idle, max_life=max_life),
        batch_size=batch_size,
        max_delay=max_delay,
        capacity=capacity,
        max_bytes=max_bytes,
        tickets=tickets,
    )
    for worker in range(workers):
        made.ready(worker, 0.0)
    return made


def sends(actions: Sequence[Action]) -> list[tuple[int, str]]:
    """Worker and names of the jobs of each batch that is sent."""
    return [(send.worker, names(send.jobs)) for send in actions if isinstance(send, Send)]


def names(jobs: Sequence[Job]) -> str:
    return " ".join(one.request.id for one in jobs)


def add(s: SequenceScheduler, jobs: str, now: float = 0.0) -> list[tuple[int, str]]:
    """What is sent for these jobs."""
    return [sent for name in jobs.split() for sent in sends(s.add(job(name), now))]


def reply(s: SequenceScheduler, worker: int, now: float = 0.0) -> list[tuple[int, str]]:
    """What is sent when a worker has answered what it has."""
    return sends(s.reply(worker, s._workers[worker].batch, now))


def refused(s: SequenceScheduler, name: str, now: float = 0.0) -> tuple[Cause, str]:
    with pytest.raises(NotAccepted) as raised:
        s.add(job(name), now)
    return raised.value.cause, raised.value.detail


def refusals(actions: Sequence[Action]) -> list[tuple[str, str]]:
    return [(refuse.job.request.id, refuse.detail) for refuse in actions if isinstance(refuse, Refuse)]


def closed(actions: Sequence[Action]) -> list[tuple[str, str]]:
    return [(action.sequence, action.why) for action in actions if isinstance(action, Closed)]


def test_the_requests_of_a_sequence_follow_one_another() -> None:
    s = scheduler(workers=2)
    assert add(s, "a1 a2 a3") == [(0, "a1")], "though a worker is idle"
    assert reply(s, 0) == [(0, "a2")]
    assert reply(s, 0) == [(0, "a3")]
    assert reply(s, 0) == []
    assert s.idle


def test_a_sequence_stays_with_its_worker() -> None:
    s = scheduler(workers=2)
    assert add(s, "a1 b1") == [(0, "a1"), (1, "b1")]
    assert reply(s, 1) == []
    assert add(s, "a2") == [], "an idle worker does not know the sequence"
    assert reply(s, 0) == [(0, "a2")]
    assert reply(s, 0) == []
    assert add(s, "b2 a3") == [(1, "b2"), (0, "a3")]


def test_a_batch_has_requests_of_different_sequences() -> None:
    """As observed on TorchServe: the first one alone, then both sequences, then the rest of the second one."""
    s = scheduler(batch_size=8, max_delay=0.1)
    s.add(job("a1"), 0.0)
    assert sends(s.tick(0.1)) == [(0, "a1")]
    assert add(s, "a2 b1 b2", 0.2) == []
    assert reply(s, 0, 0.8) == []
    assert sends(s.tick(0.9)) == [(0, "b1 a2")]
    assert reply(s, 0, 1.7) == []
    assert sends(s.tick(1.8)) == [(0, "b2")]


def test_a_full_batch_leaves_at_once_and_is_never_larger_than_the_number_of_sequences() -> None:
    s = scheduler(batch_size=2, max_delay=1.0)
    assert add(s, "a1 b1 c1") == [(0, "a1 b1")]
    s = scheduler(batch_size=8, max_delay=1.0, most=2)
    assert add(s, "a1 b1") == [(0, "a1 b1")]


def test_without_delay_a_free_worker_takes_what_waits() -> None:
    s = scheduler(batch_size=8)
    assert add(s, "a1 b1 c1") == [(0, "a1")]
    assert reply(s, 0) == [(0, "b1 c1")]


def test_another_kind_ends_a_batch() -> None:
    s = scheduler(batch_size=8, max_delay=1.0)
    s.add(job("a1"), 0.0)
    assert sends(s.add(job("b1", EXPLAIN), 0.0)) == [(0, "a1")]
    assert reply(s, 0, 0.5) == []
    assert sends(s.tick(1.5)) == [(0, "b1")]


def test_new_sequences_go_to_the_free_worker_with_the_fewest() -> None:
    s = scheduler(workers=2, batch_size=8, max_delay=1.0)
    add(s, "a1 b1 c1 d1")
    assert sends(s.tick(1.0)) == [(0, "a1 c1"), (1, "b1 d1")]
    reply(s, 0, 1.0)
    add(s, "e1", 1.0)
    assert sends(s.tick(2.0)) == [(0, "e1")], "the other one is busy"


def test_a_worker_takes_no_more_than_its_share() -> None:
    s = scheduler(workers=2, most=4)
    assert add(s, "a1 b1") == [(0, "a1"), (1, "b1")]
    reply(s, 0)
    assert add(s, "c1") == [(0, "c1")]
    reply(s, 0)
    assert add(s, "d1") == [], "worker 1 has room, and will be free"
    assert reply(s, 1) == [(1, "d1")]


def test_a_lonely_worker_takes_all_of_them() -> None:
    s = scheduler(workers=0, most=4)
    assert add(s, "a1 b1 c1 d1") == []
    assert sends(s.ready(0, 0.0)) == [(0, "a1")]
    assert [reply(s, 0) for _ in range(3)] == [[(0, "b1")], [(0, "c1")], [(0, "d1")]]


def test_a_request_never_waits_for_idle_sequences() -> None:
    s = scheduler(batch_size=2, max_delay=0.1, most=9)
    for now, name in enumerate(["a1", "b1", "c1"]):
        s.add(job(name), float(now))
        assert sends(s.tick(now + 0.1)) == [(0, name)]
        assert reply(s, 0, now + 0.2) == []
    assert [action for action in s.add(job("c2"), 9.0) if isinstance(action, Wake)] == [Wake(9.1)]
    assert sends(s.tick(9.1)) == [(0, "c2")]


def test_whose_request_has_been_ready_for_longest_comes_first() -> None:
    s = scheduler()
    add(s, "a1 b1 a2 b2 c1")
    order = [reply(s, 0)[0][1] for _ in range(4)]
    assert order == ["b1", "c1", "a2", "b2"], "a2 and b2 became ready only with the answers to those before them"


def test_too_many_sequences_are_refused() -> None:
    s = scheduler(most=1)
    add(s, "a1")
    assert refused(s, "b1") == (Cause.SEQUENCES_FULL, "1 sequences are open (maxNumSequence)")
    assert add(s, "a2") == []
    assert [reply(s, 0), reply(s, 0)] == [[(0, "a2")], []]
    refused(s, "b1")


def test_one_request_runs_and_so_many_wait() -> None:
    s = scheduler(queue=2)
    add(s, "a1 a2 a3")
    assert refused(s, "a4") == (Cause.QUEUE_FULL, "2 requests of sequence a wait already (maxSequenceJobQueueSize)")
    assert s.waiting == 2


def test_waiting_bodies_are_bounded_in_bytes() -> None:
    s = scheduler(max_bytes=100)
    s.add(job("a1", size=500), 0.0)
    s.add(job("a2", size=99), 0.0)
    with pytest.raises(NotAccepted, match=r"99 bytes of requests wait already \(job_queue_bytes\)"):
        s.add(job("b1", size=2), 0.0)
    assert len(s.book) == 1, "the sequence that was refused is not open"


def test_a_ticket_is_a_free_worker_that_may_serve_the_sequence() -> None:
    s = scheduler(workers=2, tickets=True, most=2)
    add(s, "a1")
    cause, _ = refused(s, "a2")
    assert cause is Cause.NO_TICKET
    assert add(s, "b1") == [(1, "b1")]
    assert refused(s, "c1")[0] is Cause.NO_TICKET
    reply(s, 0)
    assert refused(s, "b2")[0] is Cause.NO_TICKET, "its worker is busy, though another one is not"
    assert add(s, "a2") == [(0, "a2")]
    with pytest.raises(NotAccepted):
        s.add(job("d", DESCRIBE), 0.0)
    reply(s, 0)
    assert sends(s.add(job("d", DESCRIBE), 0.0)) == [(0, "d")]


def test_an_idle_sequence_is_closed_and_a_later_request_opens_another() -> None:
    s = scheduler(most=1, max_idle=2.0, workers=2)
    actions = s.add(job("a1"), 0.0)
    assert Opened("a") in actions and not [action for action in actions if isinstance(action, Wake)]
    assert s.reply(0, 1, 5.0) == [Wake(7.0)]
    refused(s, "b1", 6.9)
    actions = s.tick(7.0)
    assert closed(actions) == [("a", "sequenceMaxIdleMSec")]
    assert add(s, "b1", 7.0) == [(0, "b1")]


def test_a_sequence_ends_even_if_the_timer_is_late() -> None:
    s = scheduler(most=1, max_idle=2.0)
    add(s, "a1")
    reply(s, 0, 1.0)
    actions = s.add(job("b1"), 3.0)
    assert (closed(actions), sends(actions)) == ([("a", "sequenceMaxIdleMSec")], [(0, "b1")])


def test_what_a_refusal_had_to_tell_is_told_later() -> None:
    s = scheduler(most=1, max_idle=2.0, max_bytes=10, workers=2)
    add(s, "a1")
    reply(s, 0, 1.0)
    s.add(job("d1", DESCRIBE, size=5), 1.5)
    s.add(job("d2", DESCRIBE, size=5), 1.5)
    s.add(job("d3", DESCRIBE, size=5), 1.5)
    with pytest.raises(NotAccepted, match="job_queue_bytes"):
        s.add(job("b1", size=9), 3.0)
    assert closed(s.tick(3.0)) == [("a", "sequenceMaxIdleMSec")]


def test_a_sequence_that_is_too_old_is_closed_and_what_waits_is_refused() -> None:
    s = scheduler(max_life=10.0)
    assert Wake(10.0) in s.add(job("a1"), 0.0)
    add(s, "a2", 9.0)
    actions = s.tick(10.0)
    assert refusals(actions) == [("a2", "sequence a has expired (sequenceTimeoutMSec)")]
    assert closed(actions) == [("a", "sequenceTimeoutMSec")]
    assert add(s, "a3", 10.0) == [], "it opens another sequence, and its worker is busy"
    assert reply(s, 0, 11.0) == [(0, "a3")], "the request that was running is answered"


def test_a_request_that_was_collected_is_refused_too_when_its_sequence_expires() -> None:
    """Otherwise the handler could find two requests of one id in a batch."""
    s = scheduler(max_life=10.0, batch_size=3, max_delay=5.0)
    add(s, "a1", 0.0)
    s.tick(5.0)
    reply(s, 0, 6.0)
    add(s, "a2 b1", 8.0)
    actions = s.tick(10.0)
    assert [name for name, _ in refusals(actions)] == ["a2"]
    add(s, "a3", 10.0)
    assert sends(s.tick(13.0)) == [(0, "b1 a3")]


def test_a_sequence_that_its_handler_ends_makes_room_at_once() -> None:
    s = scheduler(most=2)
    add(s, "a1 a2 b1")
    actions = s.end(["a", "nobody's"], 1.0)
    assert refusals(actions) == [("a2", "sequence a is closed: its handler ended it")]
    assert closed(actions) == [("a", "its handler ended it")]
    assert add(s, "a3") == [], "another one of that id"
    assert reply(s, 0) == [(0, "b1")]
    assert reply(s, 0) == [(0, "a3")]


def test_an_earlier_time_is_asked_for_again() -> None:
    s = scheduler(max_idle=60.0, batch_size=2, max_delay=0.1)
    s.add(job("a1"), 0.0)
    s.tick(0.1)
    assert s.reply(0, 1, 1.0) == [Wake(61.0)]
    assert s.add(job("a2"), 2.0) == [Wake(2.1)]
    assert sends(s.tick(2.1)) == [(0, "a2")]
    assert s.reply(0, 2, 3.0) == [Wake(63.0)]


def test_a_describe_job_travels_alone_when_a_worker_is_free() -> None:
    s = scheduler(workers=2, batch_size=8)
    assert sends(s.add(job("d", DESCRIBE), 0.0)) == [(0, "d")]
    add(s, "a1")
    assert sends(s.add(job("e", DESCRIBE), 0.0)) == []
    assert add(s, "b1") == []
    assert reply(s, 0) == [(0, "b1")], "requests come first"
    assert reply(s, 1) == [(1, "e")]


def test_a_describe_job_does_not_wait_for_ever() -> None:
    s = scheduler()
    add(s, "a1")
    s.add(job("d", DESCRIBE), 0.0)
    order = []
    for number in range(2, 9):
        add(s, f"a{number}")
        order += reply(s, 0)
    assert [name for _, name in order] == ["a2", "a3", "a4", "a5", "d", "a6", "a7"]


def test_jobs_without_sequence_have_a_queue_of_their_own() -> None:
    s = scheduler(capacity=1)
    add(s, "a1 a2 a3")
    s.add(job("d", DESCRIBE), 0.0)
    with pytest.raises(NotAccepted, match=r"1 requests wait already \(jobQueueSize\)"):
        s.add(job("e", DESCRIBE), 0.0)


def test_a_cancelled_request_is_withdrawn_or_forgotten() -> None:
    s = scheduler(batch_size=2, max_delay=1.0)
    jobs = [job(name) for name in ("a1", "a2", "a3")]
    for one in jobs:
        s.add(one, 0.0)
    s.tick(1.0)
    assert s.cancel(jobs[0], 1.0) == [Withdraw(0, 1, jobs[0])]
    assert s.cancel(jobs[1], 1.0) == []
    assert s.waiting == 1
    s.reply(0, 1, 2.0)
    assert s.cancel(jobs[2], 2.5) == [], "which was in a batch that formed"
    assert s.idle and s.tick(3.0) == []
    assert s.cancel(jobs[2], 3.0) == ()


def test_the_next_request_takes_the_place_of_one_that_left_a_forming_batch() -> None:
    s = scheduler(batch_size=2, max_delay=1.0)
    first = job("a1")
    s.add(first, 0.0)
    add(s, "a2")
    s.cancel(first, 0.5)
    assert len(s.book) == 1
    assert sends(s.tick(1.5)) == [(0, "a2")]


def test_a_sequence_that_nobody_has_begun_ends_with_its_only_request() -> None:
    s = scheduler(most=1, workers=0)
    one = job("a1")
    s.add(one, 0.0)
    assert closed(s.cancel(one, 0.0)) == [("a", "none of its requests was begun")]
    add(s, "b1")


def test_a_dead_worker_takes_its_sequences_along() -> None:
    s = scheduler(workers=2, most=4)
    add(s, "a1 b1")
    reply(s, 0)
    add(s, "c1 c2 a2")
    lost = s.gone(0, 1.0)
    assert names(lost.failed) == "c1"
    assert sorted(refusals(lost.actions)) == [
        ("a2", "sequence a is closed: its worker died"),
        ("c2", "sequence c is closed: its worker died"),
    ]
    assert sorted(closed(lost.actions)) == [("a", "its worker died"), ("c", "its worker died")]
    assert (len(s.book), s.waiting) == (1, 0)
    assert reply(s, 1) == []
    assert add(s, "a3") == [(1, "a3")], "its id opens another sequence"
    assert sends(s.ready(0, 2.0)) == []


def test_what_a_dead_worker_never_read_goes_to_another_if_its_sequence_was_not_begun() -> None:
    s = scheduler(batch_size=2, max_delay=1.0)
    add(s, "a1 b1")
    reply(s, 0)
    add(s, "a2 c1 c2")
    lost = s.gone(0, 1.0, unread=1)
    assert lost.failed == []
    assert refusals(lost.actions) == [("a2", "sequence a is closed: its worker died")]
    assert (s.waiting, len(s.book)) == (2, 1)
    s.ready(0, 2.0)
    assert sends(s.tick(3.0)) == [(0, "c1")]
    reply(s, 0, 3.0)
    assert sends(s.tick(4.0)) == [(0, "c2")]


def test_a_describe_job_that_was_never_read_waits_first() -> None:
    s = scheduler()
    s.add(job("d", DESCRIBE), 0.0)
    s.add(job("e", DESCRIBE), 0.0)
    assert s.gone(0, 0.0, unread=1).failed == []
    assert sends(s.ready(0, 1.0)) == [(0, "d")]


def test_a_batch_that_forms_outlives_its_worker() -> None:
    s = scheduler(workers=2, batch_size=3, max_delay=1.0)
    add(s, "a1")
    lost = s.gone(0, 0.5)
    assert (lost.failed, refusals(lost.actions)) == ([], [])
    assert sends(s.tick(1.5)) == [(1, "a1")]


def test_a_retired_worker_serves_what_was_accepted_and_its_sequences_are_closed() -> None:
    s = scheduler(workers=2, most=4)
    add(s, "a1 b1")
    reply(s, 0)
    add(s, "c1 c2 c3")
    actions = s.retire(0, 0.0)
    assert closed(actions) == [("a", "its worker was removed")], "it had nothing to do"
    assert s.busy(0)
    assert s.retire(0, 0.0) == ()
    assert reply(s, 1) == []
    assert add(s, "a2") == [(1, "a2")], "which opens another sequence"
    assert reply(s, 0) == [(0, "c2")]
    assert add(s, "c4") == [], "which opens another one, too, since the first one is closed"
    assert reply(s, 0) == [(0, "c3")]
    assert s.busy(0)
    assert reply(s, 0) == []
    assert not s.busy(0)
    assert reply(s, 1) == [(1, "c4")]
    assert s.gone(0, 1.0).failed == []


def test_a_retired_worker_waits_for_no_company_and_gives_back_what_it_has_not_begun() -> None:
    s = scheduler(workers=2, batch_size=3, max_delay=1.0)
    add(s, "a1")
    s.tick(1.0)
    reply(s, 0, 1.0)
    add(s, "a2", 1.0)
    add(s, "b1 c1", 1.0)
    assert sends(s.retire(0, 1.5)) == [(0, "a2")]
    assert not closed(s.tick(1.9))
    assert sends(s.tick(2.5)) == [(1, "b1 c1")]


def test_nothing_new_is_given_to_a_retired_worker() -> None:
    s = scheduler()
    s.retire(0, 0.0)
    assert add(s, "a1") == []
    assert sends(s.add(job("d", DESCRIBE), 0.0)) == []
    assert s.gone(0, 0.0).failed == []
    assert sends(s.ready(0, 0.0)) == [(0, "a1")]


def test_clear_gives_up_what_no_worker_has() -> None:
    s = scheduler(workers=2, batch_size=3, max_delay=1.0)
    add(s, "a1")
    s.tick(1.0)
    add(s, "a2 b1")
    s.add(job("d", DESCRIBE), 1.0)
    assert sorted(names(s.clear()).split()) == ["a2", "b1", "d"]
    assert (s.waiting, s._held, len(s.book)) == (0, 0, 1), "the one that is running"
    reply(s, 0)
    assert s.idle


def test_answers_to_unknown_batches_are_ignored() -> None:
    s = scheduler()
    assert (s.reply(0, 7, 0.0), s.reply(5, 1, 0.0), s.gone(5, 0.0).failed, s.retire(5, 0.0)) == ((), (), [], ())
    stranger = job("x1")
    assert s.cancel(stranger, 0.0) == []
    assert (s.waiting, s._held) == (0, 0)


@dataclass
class World:
    """What should be where."""

    scheduler: SequenceScheduler
    alive: set[int] = field(default_factory=set)
    retired: set[int] = field(default_factory=set)
    sent: dict[int, tuple[int, list[Job]]] = field(default_factory=dict)  # worker -> batch, jobs
    homes: dict[object, int] = field(default_factory=dict)  # sequence -> its worker
    served: dict[object, int] = field(default_factory=dict)  # sequence -> number of its last job
    jobs: list[Job] = field(default_factory=list)
    over: list[Job] = field(default_factory=list)
    now: float = 0.0

    def act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.send(action)
            elif isinstance(action, Refuse):
                self.over.append(action.job)
            elif isinstance(action, Wake):
                assert action.at >= self.now

    def send(self, send: Send) -> None:
        assert send.worker in self.alive | self.retired and send.worker not in self.sent
        assert 0 < len(send.jobs) <= 3 and len({one.kind for one in send.jobs}) == 1
        ids = [one.sequence.id for one in send.jobs if one.sequence is not None]
        assert len(set(ids)) == len(ids) and (len(ids) == len(send.jobs) or len(send.jobs) == 1)
        running = [one for _, jobs in self.sent.values() for one in jobs]
        for one in send.jobs:
            assert not one.cancelled and one not in self.over and one not in running
            if (sequence := self.scheduler._sequences.get(one)) is not None:
                assert self.homes.setdefault(sequence, send.worker) == send.worker
                number = int(one.request.id[1:])
                assert self.served.get(sequence, -1) < number
                self.served[sequence] = number
        self.sent[send.worker] = (send.batch, list(send.jobs))


class Whatever(RuleBasedStateMachine):
    """Every job comes out once, those of a sequence in their order, and none waits that could run."""

    def __init__(self) -> None:
        super().__init__()
        made = scheduler(
            most=4, queue=3, max_idle=2.0, max_life=9.0, batch_size=3, max_delay=1.0, max_bytes=10_000, workers=0
        )
        self.world = World(made)

    @rule(id=st.sampled_from("abcdef"), kind=st.sampled_from((PREDICT, PREDICT, PREDICT, EXPLAIN, DESCRIBE)))
    def add(self, id: str, kind: int) -> None:
        world = self.world
        one = job(f"{id}{len(world.jobs)}", kind, size=1)
        try:
            actions = world.scheduler.add(one, world.now)
        except NotAccepted as refusal:
            found = world.scheduler.book.find(id)
            assert len(world.scheduler.book) == 4 if found is None else len(found.waiting) >= 3, refusal
        else:
            world.jobs.append(one)
            world.act(actions)

    @rule(worker=st.integers(0, 3))
    def ready(self, worker: int) -> None:
        world = self.world
        if worker not in world.alive | world.retired:
            world.alive.add(worker)
            world.act(world.scheduler.ready(worker, world.now))

    @precondition(lambda self: self.world.sent)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        world = self.world
        worker = data.draw(st.sampled_from(sorted(world.sent)))
        batch, jobs = world.sent.pop(worker)
        assert world.scheduler.running(worker, batch) == jobs and world.scheduler.busy(worker)
        world.over += jobs
        world.act(world.scheduler.reply(worker, batch, world.now))
        if worker in world.retired and not world.scheduler.busy(worker):
            world.retired.discard(worker)
            assert world.scheduler.gone(worker, world.now).failed == []

    @precondition(lambda self: self.world.alive | self.world.retired)
    @rule(data=st.data(), unread=st.integers(0, 1))
    def die(self, data: st.DataObject, unread: int) -> None:
        world = self.world
        worker = data.draw(st.sampled_from(sorted(world.alive | world.retired)))
        world.alive.discard(worker)
        world.retired.discard(worker)
        _, had = world.sent.pop(worker, (0, []))
        for sequence in [one for one, home in world.homes.items() if home == worker]:
            del world.homes[sequence]  # those that were not begun may move
        if unread:
            for one in had:
                if (sequence := world.scheduler._sequences.get(one)) is not None and not sequence.begun:
                    world.served.pop(sequence, None)
            world.over += [one for one in had if one.cancelled]
        lost = world.scheduler.gone(worker, world.now, unread=unread)
        assert lost.failed == ([] if unread else had)
        world.over += lost.failed
        world.act(lost.actions)
        assert not world.scheduler.book.of(worker)

    @precondition(lambda self: self.world.alive)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        world = self.world
        worker = data.draw(st.sampled_from(sorted(world.alive)))
        world.alive.discard(worker)
        world.retired.add(worker)
        world.act(world.scheduler.retire(worker, world.now))
        assert world.scheduler.busy(worker) == (worker in world.sent)

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
        assert self.world.scheduler.book.find(id) is None

    @rule()
    def clear(self) -> None:
        self.world.over += self.world.scheduler.clear()

    @invariant()
    def nothing_is_lost(self) -> None:
        world = self.world
        sent = [one for _, jobs in world.sent.values() for one in jobs]
        assert len(set(world.over)) == len(world.over)
        elsewhere = [one for one in world.jobs if one not in world.over and one not in sent and not one.cancelled]
        forming = [one for worker in world.scheduler._workers.values() for one in worker.forming]
        assert len(elsewhere) == world.scheduler.waiting + len(forming)
        assert world.scheduler._held == world.scheduler.waiting
        assert world.scheduler.idle == (not sent and not elsewhere)
        assert len(world.scheduler.book) <= 4

    @invariant()
    def nothing_waits_that_could_run(self) -> None:
        s = self.world.scheduler
        for worker in s._workers.values():
            if not worker.running:
                assert not worker.ready
                assert worker.retired or worker.forming or not s._plain
                assert not worker.forming or worker.due >= self.world.now
        assert not s._unbound or s._taker() is None


TestWhatever = Whatever.TestCase
TestWhatever.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
