"""The one door into telemetry: takes events on the event loop, writes logs and keeps metrics in a thread behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from modelserver.telemetry.catalogue import Catalogue
from modelserver.telemetry.clock import Clock
from modelserver.telemetry.definitions import Definitions, load_definitions
from modelserver.telemetry.outlets import Outlets
from modelserver.telemetry.page import level_rank
from modelserver.telemetry.records import (
    Announcement,
    BatchDone,
    MetricUpdate,
    Printed,
    RequestDone,
    Scrape,
    ServerLine,
    WorkerLoaded,
    WorkerMetrics,
)
from modelserver.telemetry.ring import Ring
from modelserver.telemetry.scribe import Scribe
from modelserver.telemetry.writer import Writer

if TYPE_CHECKING:
    from modelserver.settings.table import Settings


class Telemetry:
    """Logs and metrics of one server; satisfies the engine's `Events`. No method but `flush` and `close` blocks."""

    def __init__(
        self,
        settings: Settings,
        stdout: BinaryIO | None = None,
        clock: Clock | None = None,
        hostname: str | None = None,
        ring: Ring | None = None,
    ) -> None:
        """Open the log files and start to write. Raises ConfigurationError for metrics that cannot be exposed."""
        clock = clock or Clock()
        definitions = load_definitions(settings.metrics_config, settings.home / "ts" / "configs" / "metrics.yaml")
        catalogue = Catalogue(definitions, settings.metrics_mode)
        self._monotonic = clock.monotonic
        self._level = level_rank(settings.log_level or "DEBUG")
        self._ring = ring or Ring()
        logs, metrics = settings.log_location, settings.metrics_location
        outlets = Outlets(clock, stdout, logs, metrics) if settings.log_to_files else Outlets(clock, stdout, None, None)
        scribe = Scribe(clock, catalogue, hostname or socket.gethostname() or "Unknown", settings.log_level)
        self._writer = Writer(self._ring, scribe, outlets)
        self._report(definitions, str(settings.metrics_config))
        self._writer.start()

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        """One line of the server; `logger` without the prefix `org.pytorch.serve.`, level as log4j writes it."""
        if level_rank(level) >= self._level:
            self._ring.put(ServerLine(self._monotonic(), level, logger, message, thread))

    def announce(self, line: str) -> None:
        """A bare line on standard output, in order with what was logged before, and at once."""
        self._ring.put(Announcement(line))

    def printed(self, worker: str, stream: str, line: str) -> None:
        """A worker wrote a line to `stdout` or `stderr`."""
        self._ring.offer_printed(Printed(self._monotonic(), worker, stream, line))

    def batch_done(
        self,
        worker: str,
        model: str,
        ids: Sequence[str],
        sent: float,
        replied: float,
        metrics: Sequence[MetricUpdate],
        ok: bool,
    ) -> None:
        """A worker answered a batch, be it with a failure; one that died with it (`replied` 0) leaves nothing.

        Times in monotonic seconds.
        """
        if replied:
            self._ring.offer(BatchDone(worker, ids, sent, replied, self._monotonic(), metrics))

    def worker_loaded(self, worker: str, milliseconds: float) -> None:
        """A worker process has loaded its model, that long after its start."""
        self._ring.put(WorkerLoaded(self._monotonic(), worker, milliseconds))

    def worker_metrics(self, worker: str, model: str, metrics: Sequence[MetricUpdate]) -> None:
        """Metric updates outside a batch."""
        self._ring.offer(WorkerMetrics(self._monotonic(), worker, metrics))

    def request_done(
        self,
        remote: str,
        method: str,
        target: str,
        version: str,
        status: int,
        received: float,
        responded: float,
        worker: str = "",
        model: str = "",
        label: str = "",
        request_id: str = "",
        sent: float = 0.0,
        replied: float = 0.0,
        ok: bool = False,
    ) -> None:
        """A response is over, HTTP or gRPC (`method` "gRPC", gRPC status). Times in monotonic seconds, 0 for never.

        HTTP status 0: the client of an accepted job left before a response. `model` and `label` (the version as
        requested, or `default`) only for accepted prediction jobs; `ok`: the worker answered the job with success.
        """
        # fmt: off
        self._ring.offer(RequestDone(
            remote, method, target, version, status, received, responded,
            worker, model, label, request_id, sent, replied, ok,
        ))
        # fmt: on

    async def scrape(self, names: Sequence[str]) -> bytes:
        """The Prometheus text: everything recorded so far, or the samples with these names."""
        if self._writer.stopped:
            return b""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._ring.put(Scrape(tuple(names), answer, loop))
        return await answer

    def flush(self) -> None:
        """Return when everything recorded so far is written."""
        self._writer.flush()

    def close(self) -> None:
        """Write everything and let go of the files. What is recorded afterwards is lost."""
        self._writer.stop()

    def _report(self, definitions: Definitions, path: str) -> None:
        for error in definitions.errors:
            self.log("ERROR", "metrics.MetricCache", f"Failed to load metrics configuration: {error}")
        for warning in definitions.warnings:
            self.log("WARN", "metrics.configuration.MetricConfiguration", warning)
        if not definitions.errors:
            logger = "metrics.configuration.MetricConfiguration"
            self.log("INFO", logger, f"Successfully loaded metrics configuration from {path}")
