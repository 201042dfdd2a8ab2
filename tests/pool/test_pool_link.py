"""A link over real socket pairs, on both event loops: order, limits, and the truth about its end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from modelserver.pool.link import HELLO_LIMIT, Link, Peer
from modelserver.wire.frames import (
    Ask,
    Batch,
    Cancel,
    FromWorker,
    Hello,
    Metrics,
    Part,
    Replies,
    Reply,
    Request,
    Room,
    Share,
    Shared,
    SharedBatch,
    SharedReplies,
    Stop,
    ToWorker,
    ToWorkerReader,
    encode,
)
from modelserver.wire.places import AREA, Place
from modelserver.worker.shared_bodies import SharedBodies

HELLO = Hello(9000, 1, 0, 1, "token", "3.11.7", shares=True)
LIMIT = 1 << 20
LARGE = 1 << 16  # bytes


class Worker:
    """The peer of a link: records what comes."""

    def __init__(self) -> None:
        self.frames: list[FromWorker] = []
        self.errors: list[Exception] = []
        self.link: Link | None = None
        self.over = asyncio.get_running_loop().create_future()

    def introduce(self, hello: Hello, link: Link) -> None:
        self.frames.append(hello)
        self.link = link

    def deliver(self, frame: FromWorker) -> None:
        self.frames.append(frame)

    def violated(self, error: Exception) -> None:
        self.errors.append(error)

    def disconnected(self) -> None:
        self.over.set_result(None)


class OpenDoor:
    """Lets everybody in, or nobody."""

    def __init__(self, worker: Worker | None) -> None:
        self.worker = worker
        self.strangers = 0

    def admit(self, hello: Hello) -> Peer | None:
        return self.worker

    def opened(self, link: Link) -> None:
        self.strangers += 1

    def closed(self, link: Link) -> None:
        self.strangers -= 1


Scene = Callable[[Link, Worker, socket.socket], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scene], None]:
    """Runs a scene with a link that has had its hello, and the worker's end of the connection (blocking)."""

    async def connect(scene: Scene) -> None:
        worker = Worker()
        door = OpenDoor(worker)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Link(door, LIMIT), str(tmp_path / "s"))
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(str(tmp_path / "s"))
            end.sendall(encode(HELLO))
            await until(lambda: worker.link is not None)
            assert worker.link is not None
            assert door.strangers == 0
            await scene(worker.link, worker, end)
            worker.link.abort()
            await asyncio.wait_for(worker.over, 5)
        server.close()
        await server.wait_closed()

    def run(scene: Scene) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(turns())  # the first loop of its kind opens descriptors for good
        before = descriptors()
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(connect(scene))
        assert descriptors() == before

    return run


async def turns() -> None:
    """Long enough for what waits for its turn; nothing else happens meanwhile."""
    for _ in range(5):
        await asyncio.sleep(0)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    end = asyncio.get_running_loop().time() + 5
    while not condition():
        assert asyncio.get_running_loop().time() < end
        await turns()


def batch(number: int = 1, body: bytes = b"") -> Batch:
    return Batch(number, 0, [Request("r", [Part("body", "", body)], [], {})])


def reply(number: int) -> Replies:
    return Replies(number, 200, "ok", [Reply(0, b"x" * 1000)])


def receive(end: socket.socket, count: int) -> list[ToWorker]:
    reader = ToWorkerReader(LIMIT)
    frames: list[ToWorker] = []
    while len(frames) < count:
        frames += reader.feed(end.recv(1 << 16))
    return frames


def test_frames_arrive_in_order(play: Callable[[Scene], None]) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        sent: list[Batch | Cancel | Stop] = [batch(1), Cancel(1, ["r"]), batch(2), Stop()]
        for frame in sent:
            link.send(frame)
        assert receive(end, 4) == sent, "they leave at once, whatever the loop does"
        end.sendall(encode(reply(1)) + encode(Metrics([])))
        await until(lambda: len(worker.frames) == 3)
        assert worker.frames == [HELLO, reply(1), Metrics([])]

    play(scene)


def test_replies_in_the_buffer_survive_a_failed_write(play: Callable[[Scene], None]) -> None:
    """The worker answers and dies; before the loop has read the answers, a write fails."""

    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        for number in range(50):
            end.sendall(encode(reply(number)))
        end.close()
        # Both in one turn: frames are written before the loop gets to read.
        link.send(batch(1))
        await asyncio.wait_for(worker.over, 5)
        assert worker.frames == [HELLO, *(reply(number) for number in range(50))]
        assert link.unread

    play(scene)


def test_a_read_frame_is_not_unread(play: Callable[[Scene], None]) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        link.send(batch(1))
        await turns()
        receive(end, 1)
        end.close()
        await asyncio.wait_for(worker.over, 5)
        assert not link.unread

    play(scene)


def test_a_frame_in_the_kernel_is_unread_and_earlier_replies_arrive(play: Callable[[Scene], None]) -> None:
    """On a Unix stream socket ECONNRESET tells that the peer closed with data it had not read."""

    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        link.send(batch(1))
        await turns()
        end.sendall(encode(reply(0)))
        end.close()
        await asyncio.wait_for(worker.over, 5)
        assert worker.frames == [HELLO, reply(0)]
        assert link.unread

    play(scene)


def test_the_kernel_tells_a_peer_that_died_with_unread_data() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(b"never read")
        theirs.sendall(b"last words")
        theirs.close()
        assert ours.recv(100) == b"last words"
        with pytest.raises(ConnectionResetError):
            ours.recv(100)
        assert ours.recv(100) == b""


def test_a_large_frame_read_in_part_is_unread(play: Callable[[Scene], None]) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        link.send(batch(1, b"x" * (8 << 20)))
        await turns()
        end.setblocking(False)
        with pytest.raises(BlockingIOError):
            while end.recv(1 << 20):  # all that the kernel holds, but the transport has more
                pass
        end.close()
        await asyncio.wait_for(worker.over, 5)
        assert link.unread

    play(scene)


def test_a_batch_that_was_read_counts_as_started_though_its_cancellation_was_not(play: Callable[[Scene], None]) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        link.send(batch(1))
        await turns()
        receive(end, 1)
        link.send(Cancel(1, ["r"]))
        await turns()
        end.close()
        await asyncio.wait_for(worker.over, 5)
        assert not link.unread

    play(scene)


def test_a_batch_sent_after_the_end_is_unread(play: Callable[[Scene], None]) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        end.close()
        await asyncio.wait_for(worker.over, 5)
        assert not link.unread
        link.send(batch(1))
        await turns()
        assert link.unread
        link.send(Cancel(1, ["r"]))
        link.send(batch(2))
        assert link.unread == 2

    play(scene)


@pytest.mark.parametrize(
    "garbage",
    [(LIMIT + 1).to_bytes(4, "little"), b"\x01\x00\x00\x00\xc1", encode(Stop())],
    ids=["large", "bad", "kind"],
)
def test_garbage_is_a_violation_told_once(play: Callable[[Scene], None], garbage: bytes) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        end.sendall(encode(reply(1)) + garbage)
        await until(lambda: bool(worker.errors))
        end.sendall(encode(reply(2)))
        end.close()
        await asyncio.wait_for(worker.over, 5)
        assert worker.frames == [HELLO, reply(1)]
        assert len(worker.errors) == 1

    play(scene)


def test_closing_delivers_what_has_arrived(play: Callable[[Scene], None]) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        end.sendall(encode(reply(1)))
        link.close()
        assert worker.frames == [HELLO, reply(1)]
        link.close()
        await asyncio.wait_for(worker.over, 5)
        assert end.recv(1) == b""

    play(scene)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    "words",
    [encode(HELLO), encode(reply(1)), (HELLO_LIMIT + 1).to_bytes(4, "little"), b"\x01\x00\x00\x00\xc1"],
    ids=["refused", "no hello", "large", "bad"],
)
def test_strangers_are_sent_away(
    factory: Callable[[], asyncio.AbstractEventLoop], words: bytes, tmp_path: Path
) -> None:
    async def main() -> None:
        door = OpenDoor(None)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: Link(door, LIMIT), str(tmp_path / "s"))
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        writer.write(words)
        try:
            assert await asyncio.wait_for(reader.read(), 5) == b""
        except ConnectionResetError:
            pass
        writer.close()
        await until(lambda: door.strangers == 0)
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


class SharingWorker:
    """The worker's end of a link, with a memory of its own."""

    def __init__(self, end: socket.socket) -> None:
        self.shared = SharedBodies()
        self._end = end
        self._reader = ToWorkerReader(1 << 31)

    def receive(self) -> list[type]:
        """Kinds of the next frames, of which the last is a batch; offers are accepted, batches filled."""
        frames: list[ToWorker] = []
        while not frames or not isinstance(frames[-1], Batch | SharedBatch):
            frames += self._reader.feed(self._end.recv(1 << 16))
        for frame in frames:
            if isinstance(frame, Share):
                self._end.sendall(encode(self.shared.attach(frame)))
            elif isinstance(frame, Room):
                self.shared.resize(frame.size)
            elif isinstance(frame, SharedBatch):
                (request,) = self.shared.fill(frame).requests
                assert request.parts[0].value == b"b" * LARGE
        return [type(frame) for frame in frames]

    def answer(self, number: int) -> type:
        replies = self.shared.lay(Replies(number, 200, "", [Reply(0, b"r" * LARGE)]))
        self._end.sendall(encode(replies))
        return type(replies)


async def shared(link: Link, worker: Worker, end: socket.socket) -> SharingWorker:
    """The worker after two large batches: from now on all bodies lie in the memory."""
    peer = SharingWorker(end)
    for number, frames in ((1, [Share, Batch]), (2, [Room, SharedBatch])):
        link.send(batch(number, b"b" * LARGE))
        assert peer.receive() == frames
        before = len(worker.frames)
        peer.answer(number)
        await until(lambda: len(worker.frames) > before)  # noqa: B023  # awaited within the turn
    return peer


def test_large_bodies_lie_in_shared_memory(play: Callable[[Scene], None]) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        peer = await shared(link, worker, end)
        link.send(batch(3, b"b" * LARGE))
        assert peer.receive() == [SharedBatch]
        assert peer.answer(3) is SharedReplies
        await until(lambda: len(worker.frames) == 4)
        answers = [Replies(number, 200, "", [Reply(0, b"r" * LARGE)]) for number in (1, 2, 3)]
        assert worker.frames == [HELLO, *answers]

    play(scene)


def test_a_worker_with_large_replies_asks_for_memory(play: Callable[[Scene], None]) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        peer = SharingWorker(end)
        link.send(batch(1))
        peer.receive()
        end.sendall(encode(Ask()))
        peer.answer(1)
        end.sendall(encode(Ask()))
        await until(lambda: len(worker.frames) == 2)
        link.send(batch(2))
        assert peer.receive() == [Share, Room, Batch]
        assert peer.answer(2) is SharedReplies
        await until(lambda: len(worker.frames) == 3)

    play(scene)


def test_a_last_answer_in_shared_memory_is_read_to_the_end(play: Callable[[Scene], None]) -> None:
    """The worker answers and dies; before the loop has read the answer, a write fails."""

    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        peer = await shared(link, worker, end)
        assert peer.answer(3) is SharedReplies
        end.close()
        link.send(batch(4, b"b" * LARGE))
        await asyncio.wait_for(worker.over, 5)
        assert worker.frames[-1] == Replies(3, 200, "", [Reply(0, b"r" * LARGE)])
        assert link.unread

    play(scene)


@pytest.mark.parametrize("read", [True, False])
def test_a_shared_batch_counts_as_started_once_its_frame_was_read(play: Callable[[Scene], None], read: bool) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        peer = await shared(link, worker, end)
        sent = batch(3, b"b" * LARGE)
        link.send(sent)
        await turns()
        if read:
            peer.receive()
        end.close()
        await asyncio.wait_for(worker.over, 5)
        assert bool(link.unread) is not read
        assert sent == batch(3, b"b" * LARGE), "it can be sent to another worker"

    play(scene)


@pytest.mark.parametrize(
    "places",
    [
        [Place(0, 0, AREA - 1, LARGE)],
        [Place(0, 0, 0, 1 << 40)],
        [Place(7, 0, 0, LARGE)],
        [Place(0, 0, 0, LARGE), Place(0, 0, LARGE, LARGE)],
    ],
    ids=["end", "size", "reply", "twice"],
)
def test_bodies_that_are_nowhere_are_a_violation(play: Callable[[Scene], None], places: list[Place]) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        peer = await shared(link, worker, end)
        link.send(batch(3, b"b" * LARGE))
        peer.receive()
        end.sendall(encode(SharedReplies(Replies(3, 200, "", [Reply(0, b"")]), places)))
        await until(lambda: bool(worker.errors))
        end.sendall(encode(reply(3)))
        end.close()
        await asyncio.wait_for(worker.over, 5)
        assert len(worker.frames) == 3
        assert len(worker.errors) == 1

    play(scene)


def test_a_worker_that_refuses_is_not_asked_again(play: Callable[[Scene], None]) -> None:
    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        peer = SharingWorker(end)
        link.send(batch(1, b"b" * LARGE))
        frames: list[ToWorker] = []
        reader = ToWorkerReader(1 << 31)
        while len(frames) < 2:
            frames += reader.feed(end.recv(1 << 16))
        end.sendall(encode(Shared("OSError: no /proc")) + encode(Ask()) + encode(reply(1)))
        await until(lambda: len(worker.frames) == 2)
        for number in (2, 3):
            link.send(batch(number, b"b" * LARGE))
            assert peer.receive() == [Batch]
            end.sendall(encode(reply(number)))
            await until(lambda: len(worker.frames) == number + 1)  # noqa: B023

    play(scene)


def test_without_such_memory_everything_goes_through_the_socket(
    play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")

    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        peer = SharingWorker(end)
        for number in (1, 2):
            end.sendall(encode(Ask()))
            link.send(batch(number, b"b" * LARGE))
            assert peer.receive() == [Batch]
            assert peer.answer(number) is Replies
            await until(lambda: len(worker.frames) == number + 1)  # noqa: B023

    play(scene)


def test_memory_goes_back_after_a_while(play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelserver.pool.link._REST", 0.01)

    async def scene(link: Link, worker: Worker, end: socket.socket) -> None:
        peer = SharingWorker(end)
        for number in (1, 2):
            link.send(batch(number, b"b" * LARGE))
            kinds = peer.receive()
            peer.answer(number)
            await until(lambda: len(worker.frames) > number)  # noqa: B023
        assert kinds[-1] is SharedBatch
        await until(lambda: not held())
        link.send(batch(3, b"b" * LARGE))
        assert peer.receive() == [Room, SharedBatch]
        assert peer.answer(3) is Replies, "it knows that its part of the memory is gone"
        await until(lambda: len(worker.frames) == 4)

    play(scene)


def held() -> int:
    """Bytes of all shared memory of this process."""
    paths = [path for path in Path("/proc/self/fd").iterdir() if "modelserver-bodies" in os.path.realpath(path)]
    return sum(path.stat().st_blocks for path in paths) * 512
