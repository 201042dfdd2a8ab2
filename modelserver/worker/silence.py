"""The connection of a rank that only computes: rank 0 answers for all."""

from __future__ import annotations

import socket
import time

from modelserver.wire.frames import Batch, Chunk, FromWorker, Metrics, Replies, ToWorker
from modelserver.worker.loop import Channel


class SilentChannel(Channel):
    """Keeps the rank's answers back; its metrics pass."""

    def __init__(self, connection: socket.socket, rank: int) -> None:
        super().__init__(connection)
        self._rank = rank

    def send(self, frame: FromWorker) -> None:
        """Send one frame unless it answers a batch. Raises ConnectionError once the frontend is gone."""
        if isinstance(frame, Replies):
            print(f"skip sending response at rank {self._rank}")
            if frame.metrics:
                super().send(Metrics(frame.metrics))
        elif not isinstance(frame, Chunk):
            super().send(frame)

    def receive(self) -> ToWorker:
        """Wait for the next frame. A batch is announced here; for rank 0 the frontend does it."""
        frame = super().receive()
        _announce(frame)
        return frame

    def arrived(self) -> list[ToWorker]:
        """The next frames; batches are announced as above."""
        frames = super().arrived()
        for frame in frames:
            _announce(frame)
        return frames


def _announce(frame: ToWorker) -> None:
    if isinstance(frame, Batch):
        print(f"Backend received inference at: {int(time.time())}")
