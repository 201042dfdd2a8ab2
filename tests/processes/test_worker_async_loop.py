"""The loop of an asynchronous worker over a socket pair, with a service of the test's own."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import Iterator

import pytest

from modelserver.wire.frames import (
    Batch,
    Cancel,
    Chunk,
    FromWorker,
    FromWorkerReader,
    Load,
    Part,
    Replies,
    Reply,
    Request,
    Stop,
    ToWorker,
    encode,
)
from modelserver.worker.async_loop import serve_concurrently
from modelserver.worker.concurrent_service import BatchChannel
from modelserver.worker.loop import Channel, ProtocolError
from modelserver.worker.silence import SilentChannel


class Frontend:
    """The other end of a worker's connection."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def send(self, *frames: Load | Batch | Cancel | Stop) -> None:
        self.end.sendall(b"".join(map(encode, frames)))

    def received(self) -> list[FromWorker]:
        """All that the worker has sent by its end."""
        reader = FromWorkerReader(1 << 30)
        self.end.setblocking(False)
        frames: list[FromWorker] = []
        try:
            while data := self.end.recv(1 << 20):
                frames += reader.feed(data)
        except BlockingIOError:
            pass
        return frames


class Service:
    """A batch does what the ids of its requests say: waits for a gate, opens one, or fails."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.cancelled: dict[int, list[bool]] = {}
        self.sizes: list[int] = []

    async def answer(self, batch: Batch, channel: BatchChannel) -> Replies:
        for request in batch.requests:
            order, _, name = request.id.partition(" ")
            self.sizes.append(len(request.parts[0].value))
            if order == "open":
                self.gates[name].set()
            elif order == "wait":
                await self.gates[name].wait()
            elif order == "piece":
                channel.send(Chunk(batch.id, [Reply(0, name.encode())]))
            elif order == "exit":
                raise SystemExit(3)
            elif order == "break":
                raise RuntimeError("broken")
            elif order == "spoil":
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    if "_answer" in repr(task.get_coro()):
                        task.cancel()
        self.cancelled[batch.id] = [channel.cancelled(request.id) for request in batch.requests]
        return Replies(batch.id, 200, "", [Reply(index, b"") for index in range(len(batch.requests))])


def batch(number: int, *orders: str, body: bytes = b"") -> Batch:
    return Batch(number, 0, [Request(order, [Part("body", "", body)], [], {}) for order in orders])


@pytest.fixture
def pair() -> Iterator[tuple[Frontend, Channel]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Frontend(ours), Channel(theirs)


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """An event loop that does not run, as a worker finds it."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield
    for task in asyncio.all_tasks(made):
        task.cancel()
    made.run_until_complete(asyncio.sleep(0))
    asyncio.set_event_loop(None)
    made.close()


def answered(frontend: Frontend) -> list[int]:
    return [frame.batch for frame in frontend.received() if isinstance(frame, Replies)]


def test_batches_run_at_the_same_time_and_the_stop_waits_for_them(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    frontend.send(batch(1, "wait a"), batch(2, "wait b"), batch(3, "open b"), batch(4, "wait b", "open a"), Stop())
    serve_concurrently(channel, Service())
    assert sorted(answered(frontend)) == [1, 2, 3, 4]


def test_pieces_come_before_the_answer(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    frontend.send(batch(1, "wait a", "piece one"), batch(2, "piece two", "open a", "piece three"), Stop())
    serve_concurrently(channel, Service())
    frames = frontend.received()
    of_batches = {
        number: [type(frame) for frame in frames if isinstance(frame, Chunk | Replies) and frame.batch == number]
        for number in (1, 2)
    }
    assert of_batches == {1: [Chunk, Replies], 2: [Chunk, Chunk, Replies]}


def test_a_cancellation_marks_its_own_batch_alone(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    service = Service()
    frontend.send(batch(1, "wait a", "x"), batch(2, "wait a", "x"), Cancel(2, ["x"]), Cancel(9, ["x"]))
    frontend.send(batch(3, "open a"), Stop())
    serve_concurrently(channel, service)
    assert service.cancelled == {1: [False, False], 2: [False, True], 3: [False]}


def test_a_large_body_comes_in_parts(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    service = Service()
    body = bytes(1 << 22)

    async def send_aside() -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, frontend.send, batch(1, "x", body=body), Stop())

    sending = asyncio.get_event_loop_policy().get_event_loop().create_task(send_aside())
    serve_concurrently(channel, service)
    asyncio.get_event_loop_policy().get_event_loop().run_until_complete(sending)
    assert service.sizes == [len(body)]


def test_frames_that_came_with_the_order_to_load_are_not_forgotten(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    load = Load("m", "/m", "h.py", 1, None, "", True, 1, "")
    frontend.send(load, batch(1, "x"), Stop())
    assert channel.receive() == load
    serve_concurrently(channel, Service())
    assert answered(frontend) == [1]


def test_the_end_of_the_frontend_ends_the_loop(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    frontend.send(batch(1, "x"), batch(2, "wait forever"))
    frontend.end.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError):
        serve_concurrently(channel, Service())
    assert answered(frontend) == [1]


def test_frames_that_there_is_no_memory_for_end_the_worker(pair: tuple[Frontend, Channel]) -> None:
    """The next ones would not be understood."""

    class Full(Channel):
        def arrived(self) -> list[ToWorker]:
            if super().arrived():
                raise MemoryError("full")
            return []

    frontend, channel = pair
    frontend.send(batch(1, "x"))
    with pytest.raises(MemoryError, match="full"):
        serve_concurrently(Full(channel._connection), Service())


def test_an_exit_ends_the_worker(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    frontend.send(batch(1, "wait forever"), batch(2, "exit"))
    with pytest.raises(SystemExit):
        serve_concurrently(channel, Service())


@pytest.mark.parametrize(("order", "message"), [("break", "broken"), ("spoil", "cancelled the task of another")])
def test_a_batch_that_will_never_be_answered_ends_the_worker(
    pair: tuple[Frontend, Channel], order: str, message: str
) -> None:
    frontend, channel = pair
    frontend.send(batch(1, "wait forever"), batch(2, order))
    with pytest.raises((RuntimeError, ProtocolError), match=message):
        serve_concurrently(channel, Service())


def test_a_frame_that_has_no_place_here_ends_the_worker(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    frontend.send(Load("m", "/m", "h.py", 1, None, "", True, 1, ""))
    with pytest.raises(ProtocolError, match="unexpected frame Load"):
        serve_concurrently(channel, Service())


def test_a_rank_that_only_computes_announces_batches_and_keeps_its_answers(
    pair: tuple[Frontend, Channel], capsys: pytest.CaptureFixture[str]
) -> None:
    frontend, channel = pair
    silent = SilentChannel(channel._connection, 1)
    frontend.send(batch(1, "piece x"), Stop())
    serve_concurrently(silent, Service())
    assert frontend.received() == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Backend received inference at: ") and lines[1] == "skip sending response at rank 1"
