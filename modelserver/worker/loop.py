"""The worker's end of its connection, and the loop that serves batches over it, one at a time."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from typing import Protocol

from modelserver.wire.frames import (
    Ask,
    Batch,
    Cancel,
    FromWorker,
    Replies,
    Room,
    Share,
    SharedBatch,
    Stop,
    ToWorker,
    ToWorkerReader,
    encode,
    encode_apart,
)
from modelserver.wire.places import WORTH_SHARING
from modelserver.worker.shared_bodies import SharedBodies

# Bytes of one read. A buffer of this size comes and goes with every read; the one for the rest of a large frame stays,
# because memory of more than this is given back to the kernel each time, and has to be cleared when it comes again.
_READ, _READ_MORE = 1 << 16, 1 << 18
_LARGE = WORTH_SHARING  # bytes of a frame that is not copied to have its length in front of it, either
_FRAME_LIMIT = (1 << 32) - 1  # the frontend has checked what it sends


class Service(Protocol):
    """A loaded model."""

    def handle(self, batch: Batch) -> Replies:
        """Runs the handler over one batch; a failure is a reply too."""


class ProtocolError(Exception):
    """A frame that the frontend has no reason to send now."""


class Channel:
    """Sends and receives whole frames. `send` and `cancelled` may be called from any thread."""

    def __init__(self, connection: socket.socket, *, shares: bool = False) -> None:
        """`shares`: ask the frontend to share memory as soon as an answer is large."""
        self._connection = connection
        self._asks = shares
        self._reader = ToWorkerReader(_FRAME_LIMIT)
        self._frames: deque[ToWorker] = deque()  # received, not yet taken
        self._cancelled: set[str] = set()  # requests of the running batch, or of one that waits behind it
        self._ended = False
        self._rest: memoryview | None = None  # buffer for the rest of large frames
        self._sending = threading.Lock()
        self._receiving = threading.Lock()

    def send(self, frame: FromWorker) -> None:
        """Send one frame. Raises ConnectionError once the frontend is gone."""
        length, payload = encode_apart(frame)
        with self._sending:
            if len(payload) < _LARGE:
                self._connection.sendall(length + payload)
            else:
                if self._asks and type(frame) is Replies:
                    self._asks = False
                    self._connection.sendall(encode(Ask()))
                self._connection.sendall(length)
                self._connection.sendall(payload)

    def receive(self) -> ToWorker:
        """Wait for the next frame. Raises ConnectionError once the frontend is gone."""
        with self._receiving:
            while not self._frames:
                if self._ended:
                    raise ConnectionResetError("the frontend is gone")
                self._frames.extend(self._read(0))
            return self._frames.popleft()

    def fileno(self) -> int:
        """The descriptor of the connection."""
        return self._connection.fileno()

    def arrived(self) -> list[ToWorker]:
        """What can be had without waiting. Raises ConnectionError once the frontend is gone."""
        with self._receiving:
            frames = list(self._frames)
            self._frames.clear()
            if self._ended and not frames:
                raise ConnectionResetError("the frontend is gone")
            with suppress(BlockingIOError):
                frames += self._read(socket.MSG_DONTWAIT)
            return frames

    def cancelled(self, request_id: str) -> bool:
        """True once the client of this request is gone, or the frontend with all its clients; never blocks."""
        # The lock is taken while the main thread waits for the next batch: nothing runs then that could be cancelled.
        if self._receiving.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._receiving.release()
        return self._ended or request_id in self._cancelled

    def batch_over(self) -> None:
        """Forget what was cancelled in the batch that was just answered."""
        if self._cancelled and not self._frames:
            self._cancelled.clear()

    def _drain(self) -> None:
        """Take in what has arrived: cancellations count at once, other frames keep their order."""
        while not self._ended:
            try:
                arrived = self._read(socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            for frame in arrived:
                if isinstance(frame, Cancel):
                    self._cancelled.update(frame.requests)
                else:
                    self._frames.append(frame)

    def _read(self, flags: int) -> Collection[ToWorker]:
        try:
            data = self._read_more(flags) if self._reader.partial else self._connection.recv(_READ, flags)
        except ConnectionResetError:
            data = b""
        self._ended = not data
        return list(self._reader.feed(data))

    def _read_more(self, flags: int) -> memoryview:
        """Part of the rest of a large frame; good until the next read."""
        if self._rest is None:
            self._rest = memoryview(bytearray(_READ_MORE))
        return self._rest[: self._connection.recv_into(self._rest, 0, flags)]


def serve(channel: Channel, service: Service) -> None:
    """Answer batches until the frontend says stop. Raises ConnectionError once it is gone."""
    shared = SharedBodies()
    while True:
        frame = channel.receive()
        if type(frame) is SharedBatch:
            frame = shared.fill(frame)
        if type(frame) is Batch:
            # No name holds the replies: they are gone when the next batch comes.
            channel.send(shared.lay(service.handle(frame)) if shared.room else service.handle(frame))
            channel.batch_over()
        elif type(frame) is Share:
            channel.send(shared.attach(frame))
        elif type(frame) is Room:
            shared.resize(frame.size)
        elif type(frame) is Stop:
            return
        elif type(frame) is not Cancel:  # one that crossed the answer to its batch is of no use any more
            raise ProtocolError(f"unexpected frame {type(frame).__name__}")
