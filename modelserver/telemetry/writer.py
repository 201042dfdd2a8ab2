"""The writer thread: takes records from the ring, expands them onto a page, writes the page."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from modelserver.logconfig.failures import Failures
from modelserver.telemetry.batch_lines import PATIENCE, BatchLines
from modelserver.telemetry.host_lines import HostLines
from modelserver.telemetry.outlets import Outlets
from modelserver.telemetry.records import (
    Announcement,
    BatchDone,
    Flush,
    HostReadings,
    Printed,
    Record,
    RequestDone,
    Scrape,
    ServerLine,
    WorkerLoaded,
    WorkerMetrics,
)
from modelserver.telemetry.request_lines import RequestLines
from modelserver.telemetry.ring import Ring
from modelserver.telemetry.scribe import Scribe
from modelserver.telemetry.worker_lines import WorkerLines

INTERVAL: Final = 0.03  # seconds between two drains under load
# Records written at once. With usual names their texts stay below 128 KiB, from where on the allocator maps fresh pages
# for each text and the kernel has to clear them (a quarter of the time, measured). Every write lets the event loop have
# the interpreter.
CHUNK: Final = 96
# Characters of a scrape made in one stretch, about a millisecond, and seconds between two: each turn of the event loop
# would have to wait for the interpreter's switch interval of 5 ms otherwise.
STRETCH: Final = 1 << 16
BREATH: Final = 0.0001
LIMIT: Final = 5.0  # seconds that flushing and stopping wait for a disk that hangs


class Writer:
    """Owns page, metrics and sinks; all of them are used in its thread alone."""

    def __init__(self, ring: Ring, scribe: Scribe, outlets: Outlets) -> None:
        self._ring = ring
        self._scribe = scribe
        self._outlets = outlets
        self._batches = BatchLines(scribe)
        self._requests = RequestLines(scribe)
        workers = WorkerLines(scribe)
        self._handlers: dict[type[Record], Callable[[Any], None]] = {
            RequestDone: self._request,
            BatchDone: self._batches.write,
            ServerLine: scribe.server_line,
            Printed: workers.printed,
            WorkerLoaded: workers.loaded,
            WorkerMetrics: workers.metrics,
            HostReadings: HostLines(scribe).write,
            Announcement: self._announce,
            Scrape: self._scrape,
            Flush: self._flush,
        }
        self._stopping = False
        self._failures = Failures("telemetry")
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def also(self, kind: type[Record], handler: Callable[[Any], None]) -> None:
        """Hand records of that kind to another handler, behind the one that has them already; before the start."""
        first = self._handlers.get(kind)
        self._handlers[kind] = handler if first is None else _both(first, handler)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """True once records find nobody who writes them."""
        return self._stopping

    def flush(self) -> None:
        """Return when everything recorded so far is written."""
        written = threading.Event()
        self._ring.put(Flush(written))
        if self._thread.is_alive():
            written.wait(LIMIT)

    def stop(self) -> None:
        """Write everything, end the thread and close the sinks."""
        self.flush()
        self._stopping = True
        self._ring.put(Flush(threading.Event()))
        self._thread.join(LIMIT)

    def _run(self) -> None:
        while not self._stopping:
            self._ring.rest(INTERVAL, idle=not self._batches.waiting)
            self._drain_surely()
        self._drain_surely()
        self._outlets.close()

    def _drain_surely(self) -> None:
        """Without this thread nobody is told anything any more, and scrapes are never answered."""
        try:
            self._drain()
        except Exception:
            self._failures.report()

    def _drain(self) -> None:
        self._scribe.clock.resync()
        while records := self._ring.take(CHUNK):
            self._expand(records)
            self._outlets.write(self._scribe.page)
        self._batches.release(self._scribe.clock.monotonic() - PATIENCE)
        if dropped := self._ring.take_dropped():
            text = f"{dropped} events came faster than they could be written: their lines and metrics are missing."
            self._scribe.complain("WARN", "telemetry", text)
        self._outlets.write(self._scribe.page)

    def _expand(self, records: list[Record]) -> None:
        handlers = self._handlers
        for record in records:
            try:
                handlers[type(record)](record)
            except Exception as error:
                # Whatever one record holds, the next ones must be written.
                text = f"A {type(record).__name__} record could not be written: {error!r}"
                with contextlib.suppress(Exception):  # the same may be wrong with this line
                    self._scribe.complain("ERROR", "telemetry", text)

    def _request(self, record: RequestDone) -> None:
        self._requests.write(record)
        if record.replied > 0:  # not when a response begins whose last pieces are yet to come
            self._batches.request_written(record.request_id)

    def _announce(self, record: Announcement) -> None:
        self._outlets.write(self._scribe.page)
        self._outlets.announce(record.line)

    def _scrape(self, record: Scrape) -> None:
        pieces: list[str] = []
        held = 0
        for piece in self._scribe.catalogue.pieces(record.names, openmetrics=record.openmetrics):
            pieces.append(piece)
            held += len(piece)
            if held >= STRETCH:
                held = 0
                time.sleep(BREATH)
        text = "".join(pieces).encode("utf-8", "backslashreplace")
        with contextlib.suppress(RuntimeError):  # the loop has stopped: nobody waits any more
            record.loop.call_soon_threadsafe(record.resolve, text)

    def _flush(self, record: Flush) -> None:
        self._batches.release(float("inf"))
        self._outlets.write(self._scribe.page)
        record.written.set()


def _both(first: Callable[[Any], None], second: Callable[[Any], None]) -> Callable[[Any], None]:
    def handle(record: Any) -> None:
        first(record)
        second(record)

    return handle
