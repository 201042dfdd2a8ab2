"""The memory that frontend and worker share for large bodies: both sides of it, in one process."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelserver.pool.shared_bodies import SharedBodies
from modelserver.wire.frames import (
    Batch,
    Cancel,
    FromWorker,
    Part,
    Replies,
    Reply,
    Request,
    Room,
    Share,
    Shared,
    SharedBatch,
    SharedReplies,
    ToWorker,
    ToWorkerReader,
)
from modelserver.wire.places import AREA, SHARED_FROM, WORTH_SHARING, Misplaced, Place
from modelserver.worker.shared_bodies import SharedBodies as WorkerSide

MEMORY = "/memfd:modelserver-bodies (deleted)"


class Pair:
    """Frontend and worker, and what went through the socket between them."""

    def __init__(self) -> None:
        self.frontend = SharedBodies()
        self.worker = WorkerSide()
        self.sent: list[ToWorker] = []
        self.received: list[FromWorker] = []
        self._batches = 0

    def exchange(self, bodies: Sequence[bytes], answers: Sequence[bytes] | None = None) -> list[bytes]:
        """The worker answers with the bodies that it got (and checked), or with others."""
        batch = self.batch(*bodies)
        got = self.arrive(self.frontend.encode(batch))
        assert got == batch
        assert {type(request.parts[0].value).__name__ for request in got.requests} == {"bytearray"}
        assert [request.parts[0].value for request in batch.requests] == list(bodies), "the job keeps its own"
        results = answers or [request.parts[0].value for request in got.requests]
        replies = Replies(batch.id, 200, "", [Reply(index, result) for index, result in enumerate(results)])
        whole = self.say(self.worker.lay(replies) if self.worker.room else replies)
        assert isinstance(whole, Replies)
        return [reply.body for reply in whole.replies]

    def batch(self, *bodies: bytes) -> Batch:
        self._batches += 1
        return Batch(self._batches, 0, [Request("r", [Part("body", "", body)], [], {}) for body in bodies])

    def arrive(self, data: bytes) -> Batch:
        """What the worker makes of frames, the last of which is a batch."""
        self.sent = list(ToWorkerReader(1 << 31).feed(data))
        for frame in self.sent[:-1]:
            if isinstance(frame, Share):
                self.say(self.worker.attach(frame))
            else:
                assert isinstance(frame, Room)
                self.worker.resize(frame.size)
        last = self.sent[-1]
        if isinstance(last, SharedBatch):
            return self.worker.fill(last)
        assert isinstance(last, Batch)
        return last

    def say(self, frame: FromWorker) -> FromWorker | None:
        self.received.append(frame)
        return self.frontend.receive(frame)

    @property
    def blocks(self) -> int:
        """Bytes of memory that the file really has."""
        (path,) = [path for path in Path("/proc/self/fd").iterdir() if is_memory(path)][:1]
        return path.stat().st_blocks * 512


def is_memory(path: Path) -> bool:
    try:
        return str(path.readlink()) == MEMORY
    except FileNotFoundError:
        return False


def descriptors() -> list[str]:
    return [path.name for path in Path("/proc/self/fd").iterdir() if is_memory(path)]


@pytest.fixture
def pair() -> Iterator[Pair]:
    before = descriptors()
    two = Pair()
    yield two
    two.frontend.close()
    two.frontend.close()
    del two.worker
    assert descriptors() == before


def body(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_the_first_batch_offers_the_memory_and_the_next_ones_use_it(pair: Pair) -> None:
    bodies = [body(SHARED_FROM), b"small", body(1 << 20)]
    for turn in range(4):
        assert pair.exchange(bodies) == bodies
        kinds = [type(frame) for frame in pair.sent]
        if turn == 0:
            assert kinds == [Share, Batch]
            assert [type(frame) for frame in pair.received] == [Shared, Replies]
        elif turn == 1:
            assert kinds == [Room, SharedBatch]
        else:
            assert kinds == [SharedBatch]
        if turn > 0:
            assert type(pair.received[-1]) is SharedReplies
    assert pair.exchange([b"small"]) == [b"small"]
    assert [type(frame) for frame in pair.sent] == [Batch]
    assert type(pair.received[-1]) is Replies


def test_large_replies_to_small_requests(pair: Pair) -> None:
    answers = [body(300_000), b"x", body(70_000)]
    assert pair.exchange([b"a", b"b", b"c"], answers) == answers
    assert pair.exchange([b"a", b"b", b"c"], answers) == answers
    assert [type(frame) for frame in pair.sent] == [Room, Batch]
    assert type(pair.received[-1]) is SharedReplies
    larger = [body(3_000_000), body(2_000_000)]
    assert pair.exchange([b"a", b"b"], larger) == larger, "those that do not fit travel in their frame"
    assert pair.exchange([b"a", b"b"], larger) == larger
    assert isinstance(pair.received[-1], SharedReplies) and len(pair.received[-1].places) == 2


def test_what_does_not_fit_into_the_area_travels_in_its_frame(pair: Pair) -> None:
    pair.exchange([body(WORTH_SHARING)])
    bodies = [bytes(AREA - 100), b"1" * SHARED_FROM, b"2" * 5]
    assert pair.exchange(bodies) == bodies
    assert isinstance(pair.sent[-1], SharedBatch) and len(pair.sent[-1].places) == 1
    assert pair.blocks <= 2 * AREA


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.lists(
            st.integers(0, 100) | st.integers(SHARED_FROM - 2, SHARED_FROM + 2) | st.integers(0, 300_000), min_size=1
        ),
        min_size=1,
        max_size=4,
    )
)
def test_bodies_of_any_sizes_come_back(batches: list[list[int]]) -> None:
    two = Pair()
    try:
        for sizes in batches:
            bodies = [random.Random(size).randbytes(16) * (size // 16) + bytes(size % 16) for size in sizes]
            assert two.exchange(bodies) == bodies
            assert two.exchange(bodies, bodies[::-1]) == bodies[::-1]
    finally:
        two.frontend.close()


def test_parts_of_one_request(pair: Pair) -> None:
    pair.exchange([body(WORTH_SHARING)])
    parts = [Part("a", "image/png", body(90_000)), Part("b", "text/plain", b"x"), Part("c", "", body(80_000))]
    request = Request("id", parts, [(b"A", b"b")], {"explain": "False"})
    batch = Batch(9, 3, [request, Request("empty", [], [], {})], 1)
    assert pair.arrive(pair.frontend.encode(batch)) == batch
    assert [len(part.value) for part in request.parts] == [90_000, 1, 80_000]


def test_a_batch_behind_an_unanswered_one_does_not_touch_its_bodies(pair: Pair) -> None:
    pair.exchange([body(WORTH_SHARING)])
    pair.frontend.encode(pair.batch(body(100_000)))
    second = list(ToWorkerReader(1 << 31).feed(pair.frontend.encode(pair.batch(body(200_000)))))
    assert [type(frame) for frame in second] == [Batch]


def test_other_frames_pass(pair: Pair) -> None:
    (frame,) = ToWorkerReader(100).feed(pair.frontend.encode(Cancel(1, ["r"])))
    assert frame == Cancel(1, ["r"])


def test_memory_goes_back_when_nobody_has_used_it(pair: Pair) -> None:
    for _ in range(2):
        pair.exchange([body(2_000_000)])
    assert pair.blocks >= 4_000_000
    assert not pair.frontend.rest(), "it has been used since the last look"
    pair.frontend.encode(pair.batch(b"a batch is running"))
    assert not pair.frontend.rest()
    assert not pair.frontend.rest()
    pair.say(Replies(0, 200, "", []))
    assert pair.frontend.rest()
    assert pair.frontend.held == pair.blocks == 0
    assert pair.exchange([body(2_000_000)]) == [body(2_000_000)]
    assert [type(frame) for frame in pair.sent] == [Room, SharedBatch]
    assert isinstance(pair.received[-1], Replies), "the worker knows that the replies have no memory any more"
    assert pair.exchange([body(2_000_000)]) == [body(2_000_000)]
    assert isinstance(pair.received[-1], SharedReplies)


def test_without_memory_bodies_travel_in_their_frames(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    for _ in range(3):
        assert pair.exchange([body(100_000)]) == [body(100_000)]
        assert type(pair.sent[-1]) is Batch
        assert type(pair.received[-1]) is Replies
    assert pair.blocks == 0


def test_nobody_can_cut_or_grow_the_file(pair: Pair) -> None:
    pair.exchange([body(WORTH_SHARING)])
    for descriptor in descriptors():
        for size in (0, 1 << 40):
            with pytest.raises(PermissionError):
                os.ftruncate(int(descriptor), size)
    assert pair.exchange([body(100_000)]) == [body(100_000)]


@pytest.mark.parametrize(
    "missing", ["memfd_create", "refused", "seals", "mapping"], ids=["no call", "refused", "seals", "mapping"]
)
def test_where_there_is_no_such_memory_nothing_is_left_open(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")

    if missing == "memfd_create":
        monkeypatch.delattr(os, "memfd_create")
    elif missing == "refused":
        monkeypatch.setattr(os, "memfd_create", refuse)
    elif missing == "seals":
        monkeypatch.setattr(fcntl, "fcntl", refuse)
    else:
        monkeypatch.setattr(mmap, "mmap", refuse)
    before = descriptors()
    with pytest.raises(OSError):
        SharedBodies()
    assert descriptors() == before


def test_a_worker_that_cannot_reach_the_memory_says_so(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    for _ in range(3):
        assert pair.exchange([body(100_000)]) == [body(100_000)]
        assert type(pair.sent[-1]) is Batch
    assert pair.received[0] == Shared("PermissionError: [Errno 13] Permission denied")
    assert descriptors() == [], "there will be no second attempt"


@pytest.mark.parametrize("wrong", ["process", "descriptor", "device", "inode"])
def test_a_worker_opens_nothing_but_the_memory(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "other"
    os.mkfifo(path)  # whoever opens it for the sake of its name alone waits for ever, or wakes somebody
    fifo = os.open(path, os.O_RDWR)
    share = Share(os.getpid(), fifo, 1, 1, AREA)
    if wrong == "process":
        share.process = 0
    elif wrong == "descriptor":
        share.descriptor = -1
    elif wrong == "device":
        share.inode = path.stat().st_ino
    else:
        share.device = path.stat().st_dev
    side = WorkerSide()
    assert "Error" in side.attach(share).error
    side.resize(1 << 20)
    assert side.room == 0
    with pytest.raises(Misplaced):
        side.fill(SharedBatch(Batch(1, 0, [Request("r", [Part("b", "", b"")], [], {})]), [Place(0, 0, 0, 100)]))
    os.close(fifo)


@pytest.mark.parametrize(
    "places",
    [
        [Place(0, 0, AREA, 1 << 16)],
        [Place(0, 0, 0, AREA)],
        [Place(0, 0, -(1 << 16), 1 << 16)],
        [Place(0, 0, 0, 0)],
        [Place(1, 0, 0, 1 << 16)],
        [Place(-1, 0, 0, 1 << 16)],
        [Place(0, 0, 0, 1 << 16), Place(0, 0, 1 << 16, 1 << 16)],
        [Place(0, 1, 0, 1 << 16), Place(0, 0, 0, 1 << 16)],
    ],
)
def test_a_worker_that_lies_is_not_believed(pair: Pair, places: list[Place]) -> None:
    for _ in range(2):
        pair.exchange([body(100_000)])
    with pytest.raises(Misplaced):
        pair.say(SharedReplies(Replies(1, 200, "", [Reply(0, b"")]), places))


def test_replies_in_memory_that_was_never_had(pair: Pair) -> None:
    with pytest.raises(Misplaced):
        pair.say(SharedReplies(Replies(1, 200, "", [Reply(0, b"")]), [Place(0, 0, 0, 1 << 16)]))
    pair.say(Shared("no"))
    with pytest.raises(Misplaced):
        pair.say(SharedReplies(Replies(1, 200, "", [Reply(0, b"")]), [Place(0, 0, 0, 1 << 16)]))


def test_what_was_delivered_is_the_frontends_own(pair: Pair) -> None:
    """A worker that writes into the memory later changes nothing that was delivered."""
    for _ in range(2):
        answers = pair.exchange([body(100_000)])
    os.pwrite(int(descriptors()[0]), b"x" * 100_000, AREA)
    assert answers == [body(100_000)]
