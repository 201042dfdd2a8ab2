"""The worker's end of its connection, and the loop that serves batches over it, one at a time."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Collection
from typing import Protocol

from modelserver.wire.frames import (
    Batch,
    Cancel,
    FromWorker,
    Replies,
    Stop,
    ToWorker,
    ToWorkerReader,
    encode,
)

# Bytes of one read, and of one for the rest of a large frame: a buffer of this size comes and goes with every read.
_READ, _READ_MORE = 1 << 16, 1 << 20
_FRAME_LIMIT = (1 << 32) - 1  # the frontend has checked what it sends


class Service(Protocol):
    """A loaded model."""

    def handle(self, batch: Batch) -> Replies:
        """Runs the handler over one batch; a failure is a reply too."""


class ProtocolError(Exception):
    """A frame that the frontend has no reason to send now."""


class Channel:
    """Sends and receives whole frames. `send` and `cancelled` may be called from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = ToWorkerReader(_FRAME_LIMIT)
        self._frames: deque[ToWorker] = deque()  # received, not yet taken
        self._cancelled: set[str] = set()  # requests of the running batch, or of one that waits behind it
        self._ended = False
        self._sending = threading.Lock()
        self._receiving = threading.Lock()

    def send(self, frame: FromWorker) -> None:
        """Send one frame. Raises ConnectionError once the frontend is gone."""
        data = encode(frame)
        with self._sending:
            self._connection.sendall(data)

    def receive(self) -> ToWorker:
        """Wait for the next frame. Raises ConnectionError once the frontend is gone."""
        with self._receiving:
            while not self._frames:
                if self._ended:
                    raise ConnectionResetError("the frontend is gone")
                self._frames.extend(self._read(0))
            return self._frames.popleft()

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
            data = self._connection.recv(_READ_MORE if self._reader.partial else _READ, flags)
        except ConnectionResetError:
            data = b""
        self._ended = not data
        return list(self._reader.feed(data))


def serve(channel: Channel, service: Service) -> None:
    """Answer batches until the frontend says stop. Raises ConnectionError once it is gone."""
    while True:
        frame = channel.receive()
        if type(frame) is Batch:
            channel.send(service.handle(frame))
            channel.batch_over()
        elif type(frame) is Stop:
            return
        elif type(frame) is not Cancel:  # one that crossed the answer to its batch is of no use any more
            raise ProtocolError(f"unexpected frame {type(frame).__name__}")
