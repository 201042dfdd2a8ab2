"""The book of open sequences: limits, clocks, bindings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.engine.job import Job
from modelserver.engine.scheduler import NotAccepted
from modelserver.engine.sequence_book import SequenceBook
from modelserver.errors import Cause
from modelserver.wire.frames import Request


def job() -> Job:
    return Job(Request("id", [], [], {}), "m", "default", 0.0, lambda _: None)


def book(*, most: int = 9, queue: int = 9, max_idle: float = 0.0, max_life: float = 0.0) -> SequenceBook:
    return SequenceBook(most=most, queue=queue, max_idle=max_idle, max_life=max_life)


def serve(b: SequenceBook, id: str, begun: float, over: float) -> None:
    """A request comes, is taken by worker 0, and answered."""
    sequence = b.enter(id, job(), begun)
    b.bind(sequence, 0)
    b.take(sequence)
    sequence.begun = True
    b.settle(sequence, over)


def overdue(b: SequenceBook, now: float) -> list[tuple[str, str]]:
    return [(sequence.id, why) for sequence, why in b.overdue(now)]


def test_a_request_joins_its_sequence_or_opens_one() -> None:
    b = book()
    first = b.enter("a", job(), 0.0)
    assert b.enter("a", job(), 1.0) is first
    assert b.enter("b", job(), 1.0) is not first
    assert (len(b), first.opened, len(first.waiting), b.find("c")) == (2, 0.0, 2, None)


def test_the_number_of_sequences_is_limited() -> None:
    b = book(most=2)
    first = b.enter("a", job(), 0.0)
    b.enter("b", job(), 0.0)
    with pytest.raises(NotAccepted, match=r"2 sequences are open \(maxNumSequence\)") as refused:
        b.enter("c", job(), 0.0)
    assert refused.value.cause is Cause.SEQUENCES_FULL
    b.close(first)
    b.enter("c", job(), 0.0)


def test_the_waiting_requests_of_a_sequence_are_limited_and_active_ones_do_not_count() -> None:
    b = book(queue=2)
    sequence = b.enter("a", job(), 0.0)
    b.bind(sequence, 0)
    b.take(sequence)
    for _ in range(2):
        b.enter("a", job(), 0.0)
    with pytest.raises(NotAccepted, match=r"2 requests of sequence a wait already \(maxSequenceJobQueueSize\)"):
        b.enter("a", job(), 0.0)
    assert (sequence.active, len(sequence.waiting)) == (1, 2)


def test_the_idle_time_begins_with_the_end_of_the_last_request() -> None:
    b = book(max_idle=1.0)
    serve(b, "a", 0.0, 10.0)
    assert (b.due, overdue(b, 10.9), overdue(b, 11.0)) == (11.0, [], [("a", "sequenceMaxIdleMSec")])
    sequence = b.enter("a", job(), 10.9)
    assert (b.due, overdue(b, 99.0)) == (None, []), "it is not idle while a request waits"
    b.take(sequence)
    assert overdue(b, 99.0) == [], "nor while one runs"
    b.settle(sequence, 100.0)
    assert b.due == 101.0


def test_the_life_of_a_sequence_is_that_from_its_first_request() -> None:
    b = book(max_life=5.0, max_idle=1.0)
    b.enter("a", job(), 0.0)
    serve(b, "b", 3.0, 3.5)
    assert b.due == 4.5
    assert overdue(b, 4.5) == [("b", "sequenceMaxIdleMSec")]
    assert overdue(b, 8.0) == [("a", "sequenceTimeoutMSec"), ("b", "sequenceTimeoutMSec")]


def test_without_limits_nothing_is_ever_overdue() -> None:
    b = book()
    serve(b, "a", 0.0, 0.0)
    assert (b.due, overdue(b, 1e9)) == (None, [])


def test_a_closed_sequence_is_forgotten_and_keeps_what_waits() -> None:
    b = book(max_idle=1.0, max_life=1.0)
    waiting = job()
    sequence = b.enter("a", waiting, 0.0)
    b.bind(sequence, 3)
    assert (b.count(3), b.of(3)) == (1, [sequence])
    b.close(sequence)
    b.close(sequence)
    assert (len(b), b.count(3), b.due, sequence.closed, list(sequence.waiting)) == (0, 0, None, True, [waiting])
    assert b.enter("a", job(), 0.5) is not sequence
    assert not b.drop(sequence, waiting, 0.5), "which is no end of a second time"


def test_a_sequence_that_nobody_has_begun_ends_with_its_last_request() -> None:
    b = book()
    one, other = job(), job()
    sequence = b.enter("a", one, 0.0)
    b.enter("a", other, 0.0)
    assert not b.drop(sequence, one, 0.0)
    b.bind(sequence, 0)
    b.take(sequence)
    assert b.settle(sequence, 0.0)
    assert (sequence.closed, len(b), b.count(0)) == (True, 0, 0)


def test_requests_that_nobody_has_begun_wait_before_the_others() -> None:
    b = book()
    jobs = [job() for _ in range(3)]
    for one in jobs:
        sequence = b.enter("a", one, 0.0)
    taken = [b.take(sequence), b.take(sequence)]
    assert taken == jobs[:2]
    b.put_back(sequence, taken)
    assert (list(sequence.waiting), sequence.active) == (jobs, 0)


@given(most=st.integers(1, 50), workers=st.integers(1, 9), opened=st.integers(1, 50))
def test_a_new_sequence_always_finds_room(most: int, workers: int, opened: int) -> None:
    """However many there may be: as long as one more may be open, some worker holds less than its share."""
    b = book(most=most)
    for number in range(min(most, opened)):
        sequence = b.enter(str(number), job(), 0.0)
        with_room = [worker for worker in range(workers) if b.has_room(worker, workers)]
        b.bind(sequence, with_room[0])
    assert max(b.count(worker) for worker in range(workers)) <= -(-most // workers)
