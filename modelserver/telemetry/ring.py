"""The bounded ring between the event loop, which appends, and the writer thread, which takes."""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from modelserver.telemetry.records import Event, Printed, Record

EVENTS: Final = 1 << 16  # waiting: two seconds of the highest load, in some 25 MB
_SPARE: Final = 8  # the part of the room that may be taken before what can be spared is dropped
PRINTED: Final = 16 << 20  # characters of worker output waiting


class Ring:
    """A queue whose producers never wait: what does not fit is counted and dropped."""

    def __init__(self, events: int = EVENTS, printed: int = PRINTED) -> None:
        self._limit = events
        self._printed_limit = printed
        self._queue: deque[Record] = deque()
        self._dropped = 0
        self._reported = 0
        self._printed_in = 0  # counted by the event loop, the next by the writer: neither needs a lock
        self._printed_out = 0
        self.idle = False  # the writer sleeps until a record comes
        self._stirred = threading.Event()
        self._urgent = threading.Event()

    def offer(self, event: Event) -> None:
        """Append an event that may be dropped. It wakes the writer only from idleness."""
        if len(self._queue) >= self._limit:
            self._dropped += 1
            return
        self._queue.append(event)
        if self.idle:
            self._stirred.set()

    def offer_spare(self, event: Event) -> bool:
        """Append an event that takes long to be written, unless others would have to be dropped for it soon."""
        if len(self._queue) >= self._limit // _SPARE:
            return False
        self.offer(event)
        return True

    def offer_printed(self, event: Printed) -> None:
        """Append a line of worker output, unless too much of it waits already."""
        waiting = self._printed_in - self._printed_out
        if len(self._queue) >= self._limit or waiting + len(event.line) > self._printed_limit:
            self._dropped += 1
            return
        self._printed_in += len(event.line)
        self.offer(event)

    def put(self, record: Record) -> None:
        """Append a record that is never dropped, and have it written at once."""
        self._queue.append(record)
        self._urgent.set()
        self._stirred.set()

    def take(self, most: int) -> list[Record]:
        """The oldest records, at most so many."""
        popleft = self._queue.popleft
        records = [popleft() for _ in range(min(most, len(self._queue)))]
        if self._printed_out != self._printed_in:
            self._printed_out += sum(len(record.line) for record in records if type(record) is Printed)
        return records

    def take_dropped(self) -> int:
        """Events dropped since the last call."""
        dropped = self._dropped - self._reported
        self._reported += dropped
        return dropped

    def rest(self, interval: float, *, idle: bool) -> None:
        """Sleep for `interval` seconds, less if an urgent record comes; with `idle`, first until any record comes."""
        if idle:
            self.idle = True
            if not self._queue:  # what was appended before the flag was up has stirred nobody
                self._stirred.wait()
            self.idle = False
        self._stirred.clear()
        self._urgent.wait(interval)
        self._urgent.clear()
