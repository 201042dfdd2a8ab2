"""Metric updates of a worker: kept for the reply while a batch runs, sent at once otherwise."""

from __future__ import annotations

from threading import Lock

from modelserver.wire.frames import Metric, Metrics
from ts.channel import Channel


class Updates:
    """Sorts updates from any thread of the handler into the one way or the other; none is lost."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._held: list[Metric] | None = None
        self._lock = Lock()

    def add(self, update: Metric) -> None:
        """Take one update in."""
        with self._lock:
            if self._held is not None:
                self._held.append(update)
                return
        self._channel.send(Metrics([update]))

    def hold(self) -> None:
        """A batch begins."""
        with self._lock:
            self._held = []

    def release(self) -> list[Metric]:
        """The batch ends: the updates made meanwhile."""
        with self._lock:
            held, self._held = self._held, None
        return held or []
