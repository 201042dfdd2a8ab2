"""The worker's loop and channel over a socket pair, with a service of the test's own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from modelserver.pool.shared_bodies import SharedBodies
from modelserver.wire.frames import (
    Ask,
    Batch,
    Cancel,
    Chunk,
    FromWorker,
    FromWorkerReader,
    Load,
    Metrics,
    Part,
    Replies,
    Reply,
    Request,
    Stop,
    encode,
)
from modelserver.worker.loop import Channel, ProtocolError, serve


class Frontend:
    """The other end of a worker's connection."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._reader = FromWorkerReader(1 << 30)

    def send(self, *frames: Load | Batch | Cancel | Stop) -> None:
        self.end.sendall(b"".join(map(encode, frames)))

    def receive(self, count: int) -> list[FromWorker]:
        frames: list[FromWorker] = []
        while len(frames) < count:
            data = self.end.recv(1 << 20)
            assert data, "connection ended"
            frames += self._reader.feed(data)
        return frames


class Service:
    """Answers what `answer` makes of each batch, and remembers the order of batches."""

    def __init__(self, answer: Callable[[Batch], list[Reply]] = lambda batch: []) -> None:
        self.answer = answer
        self.served: list[int] = []

    def handle(self, batch: Batch) -> Replies:
        self.served.append(batch.id)
        return Replies(batch.id, 200, "ok", self.answer(batch))


@pytest.fixture
def pair() -> Iterator[tuple[Frontend, Channel]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(60)
        yield Frontend(ours), Channel(theirs)


def batch(number: int, *ids: str, body: bytes = b"") -> Batch:
    return Batch(number, 0, [Request(name, [Part("body", "", body)], [], {}) for name in ids or ("r",)])


def test_batches_are_answered_in_order_until_the_stop(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    service = Service()
    frontend.send(batch(1), batch(2), Cancel(1, ["r"]), batch(3), Stop(), batch(4))
    serve(channel, service)
    assert service.served == [1, 2, 3]
    assert [frame.batch for frame in frontend.receive(3) if isinstance(frame, Replies)] == [1, 2, 3]


def test_a_large_body_goes_both_ways(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    body = bytes(range(256)) * (1 << 15)
    service = Service(lambda batch: [Reply(0, batch.requests[0].parts[0].value)])

    def send() -> None:
        frontend.send(batch(1, body=body), Stop())

    received: list[FromWorker] = []
    threads = [threading.Thread(target=send), threading.Thread(target=lambda: received.extend(frontend.receive(1)))]
    for thread in threads:
        thread.start()
    serve(channel, service)
    for thread in threads:
        thread.join()
    assert received == [Replies(1, 200, "ok", [Reply(0, body)])]


def test_the_end_of_the_frontend_ends_the_loop(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    service = Service()
    frontend.send(batch(1))
    frontend.end.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError):
        serve(channel, service)
    assert service.served == [1]
    with pytest.raises(ConnectionError):
        channel.receive()


def test_a_frontend_that_died_with_answers_unread_ends_the_loop(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    channel.send(Metrics([]))
    frontend.end.close()
    with pytest.raises(ConnectionError):
        channel.receive()


def test_an_answer_to_nobody_ends_the_loop(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    frontend.send(batch(1))
    with pytest.raises(ConnectionError):
        serve(channel, Service(lambda _: frontend.end.close() or []))  # type: ignore[func-returns-value]


def test_a_second_load_and_garbage_are_errors(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    frontend.send(Load("m", "/", "", 1, None, "", True, 1, ""))
    with pytest.raises(ProtocolError, match="unexpected frame Load"):
        serve(channel, Service())
    frontend.end.sendall(b"\x01\x00\x00\x00\xc1")
    with pytest.raises(msgspec.MsgspecError):
        channel.receive()


def test_cancellations_are_seen_while_the_handler_runs(pair: tuple[Frontend, Channel]) -> None:
    """They overtake batches that wait behind them; these keep their order, and their own cancellations."""
    frontend, channel = pair
    seen: dict[int, list[bool]] = {}

    def answer(running: Batch) -> list[Reply]:
        before = [channel.cancelled(name) for name in ("a", "b", "c")]
        if running.id == 1:
            assert before == [False, False, False]
            frontend.send(batch(2, "c"), Cancel(1, ["a"]), batch(3, "c"), Cancel(2, ["c"]))
        seen[running.id] = [channel.cancelled(name) for name in ("a", "b", "c")]
        return []

    service = Service(answer)
    frontend.send(batch(1, "a", "b"), batch(4, "a"), Stop())
    serve(channel, service)
    assert service.served == [1, 4]  # Stop was sent before the batches 2 and 3
    assert seen[1] == [True, False, True]


def test_cancellations_are_forgotten_with_their_batch(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    seen: list[bool] = []

    def answer(running: Batch) -> list[Reply]:
        if running.id == 1:
            frontend.send(Cancel(1, ["a"]))
        seen.append(channel.cancelled("a"))
        if running.id == 1:
            channel_is_idle.set()
        return []

    channel_is_idle = threading.Event()

    def go_on() -> None:
        channel_is_idle.wait()
        frontend.receive(1)
        frontend.send(batch(2, "a"), Stop())

    thread = threading.Thread(target=go_on)
    thread.start()
    frontend.send(batch(1, "a"))
    serve(channel, Service(answer))
    thread.join()
    assert seen == [True, False]


def test_everybody_is_gone_when_the_frontend_is(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    assert not channel.cancelled("a")
    frontend.end.close()
    assert channel.cancelled("a")


def test_asking_from_another_thread_while_idle_takes_nothing_away(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    answers: list[bool] = []
    service = Service()

    def ask() -> None:
        answers.extend(channel.cancelled("a") for _ in range(1000))
        frontend.send(batch(1), batch(2), Stop())

    thread = threading.Thread(target=ask)
    thread.start()
    serve(channel, service)
    thread.join()
    assert service.served == [1, 2]
    assert not any(answers)


def test_frames_of_several_threads_do_not_mix(pair: tuple[Frontend, Channel]) -> None:
    frontend, channel = pair
    frames = [Chunk(number, [Reply(0, bytes([number]) * 300_000)]) for number in range(8)]
    threads = [threading.Thread(target=channel.send, args=(frame,)) for frame in frames]
    for thread in threads:
        thread.start()
    received = frontend.receive(len(frames))
    for thread in threads:
        thread.join()
    assert sorted(received, key=lambda frame: frame.batch if isinstance(frame, Chunk) else -1) == frames


def test_large_bodies_lie_in_memory_once_that_is_shared() -> None:
    """Cancellations that are read while a batch runs leave the frames behind them in their order."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(60)
        frontend, channel = Frontend(ours), Channel(theirs, shares=True)

        def answer(running: Batch) -> list[Reply]:
            channel.cancelled("r")
            return [Reply(0, running.requests[0].parts[0].value)]

        worker = threading.Thread(target=serve, args=(channel, Service(answer)))
        worker.start()
        memory = SharedBodies()
        kinds = []
        for number in range(1, 5):
            sent = batch(number, body=bytes([number]) * 100_000)
            ours.sendall(memory.encode(sent) + encode(Cancel(number, ["r"])))
            answers: list[FromWorker | None] = []
            while not any(isinstance(frame, Replies) for frame in answers):
                frames = frontend.receive(1)
                kinds += [type(frame).__name__ for frame in frames]
                answers += map(memory.receive, frames)
            assert answers[-1] == Replies(number, 200, "ok", [Reply(0, bytes([number]) * 100_000)])
        frontend.send(Stop())
        worker.join(60)
        assert not worker.is_alive()
        memory.close()
    assert kinds == ["Shared", "Ask", "Replies"] + ["SharedReplies"] * 3


@pytest.mark.parametrize("shares", [True, False])
def test_a_worker_asks_for_memory_when_its_first_large_answer_comes(shares: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(60)
        frontend, channel = Frontend(ours), Channel(theirs, shares=shares)
        frames: list[FromWorker] = [
            Chunk(1, [Reply(0, b"c" * 70_000)]),
            Replies(1, 200, "", [Reply(0, b"small")]),
            Replies(2, 200, "", [Reply(0, b"r" * 70_000)]),
            Replies(3, 200, "", [Reply(0, b"r" * 70_000)]),
        ]

        def send() -> None:
            for frame in frames:
                channel.send(frame)

        sender = threading.Thread(target=send)
        sender.start()
        expected: list[FromWorker] = [*frames[:2], Ask(), *frames[2:]] if shares else frames
        received: list[FromWorker] = []
        while len(received) < len(expected):
            received += frontend.receive(1)
        sender.join(60)
    assert received == expected
