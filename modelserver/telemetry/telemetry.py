"""The one door into telemetry: takes events on the event loop, writes logs and keeps metrics in a thread behind it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

from modelserver.logconfig.plan import TELEMETRY_METRICS
from modelserver.logconfig.reading import plan_for
from modelserver.telemetry.catalogue import Catalogue
from modelserver.telemetry.clock import Clock
from modelserver.telemetry.definitions import Definitions, load_definitions
from modelserver.telemetry.java_dates import date_format, local_time
from modelserver.telemetry.latencies import Latencies
from modelserver.telemetry.outlets import Outlets
from modelserver.telemetry.records import (
    Announcement,
    BatchDone,
    HostReadings,
    MetricUpdate,
    Printed,
    Reading,
    RequestDone,
    RequestTraced,
    Scrape,
    ServerLine,
    StatisticsRequest,
    VersionsChanged,
    WorkerLoaded,
    WorkerMetrics,
)
from modelserver.telemetry.ring import Ring
from modelserver.telemetry.routes import Routes
from modelserver.telemetry.scribe import Scribe
from modelserver.telemetry.statistics import Statistics, VersionStatistics
from modelserver.telemetry.traces import Traces
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
        """Open the log files and start to write.

        Raises ConfigurationError for metrics that cannot be exposed, and for traces without their library.
        """
        clock = clock or Clock()
        definitions = load_definitions(settings.metrics_config, settings.home / "ts" / "configs" / "metrics.yaml")
        catalogue = Catalogue(
            definitions,
            settings.metrics_mode,
            detects=settings.model_metrics_auto_detect,
            histograms=settings.metrics_histograms,
        )
        self._traces_missing = False  # and said so
        self._traces = Traces(clock) if settings.opentelemetry_traces else None
        self._statistics = Statistics(clock) if settings.ts_open_inference_protocol else None
        self._monotonic = clock.monotonic
        self._ring = ring or Ring()
        self._reports_errors = "SM_TELEMETRY_LOG" in os.environ
        now = local_time(clock.stamp(clock.monotonic()))
        plan = plan_for(settings, os.environ, lambda pattern: date_format(pattern)(now))
        routes = Routes(plan)
        self.python_logging = routes.python
        outlets = Outlets(clock, routes, stdout)
        outlets.report(plan.complaints)
        scribe = Scribe(clock, catalogue, hostname or socket.gethostname() or "Unknown", routes)
        self._writer = Writer(self._ring, scribe, outlets)
        self._report(definitions, str(settings.metrics_config))
        self._observe(catalogue.latencies, settings.metrics_histograms)
        self._writer.start()

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        """One line of the server; `logger` without the prefix `org.pytorch.serve.`, level as log4j writes it.

        Those for TELEMETRY_METRICS, which is a whole name, are written only where the platform asks for them.
        """
        if logger != TELEMETRY_METRICS or self._reports_errors:
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

    def versions_changed(self, model: str, versions: Sequence[str], default: str) -> None:
        """The versions of a model that are registered from now on; none: the model is gone."""
        if self._statistics is not None:
            self._ring.put(VersionsChanged(model, tuple(versions), default))

    def worker_metrics(self, worker: str, model: str, metrics: Sequence[MetricUpdate]) -> None:
        """Metric updates outside a batch."""
        self._ring.offer(WorkerMetrics(self._monotonic(), worker, metrics))

    def host_metrics(self, readings: Sequence[Reading]) -> None:
        """Readings of this machine; any thread may call."""
        self._ring.put(HostReadings(self._monotonic(), readings))

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

        HTTP status 0: the client of an accepted job left before a response. A response that comes in pieces is recorded
        when it begins (`replied` is `BEGUN`), and when it ends (status `ENDED`). `model` and `label` (the version as
        requested, or `default`) only for accepted prediction jobs; `ok`: the worker answered the job with success.
        """
        # fmt: off
        self._ring.offer(RequestDone(
            remote, method, target, version, status, received, responded,
            worker, model, label, request_id, sent, replied, ok,
        ))
        # fmt: on

    async def scrape(self, names: Sequence[str], *, openmetrics: bool = False) -> bytes:
        """The Prometheus text: everything recorded so far, or the samples with these names."""
        if self._writer.stopped:
            return b""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._ring.put(Scrape(tuple(names), openmetrics, answer, loop))
        return await answer

    async def statistics(self) -> VersionStatistics:
        """What the statistics extension tells of the registered versions; only with `ts_open_inference_protocol`."""
        if self._statistics is None or self._writer.stopped:
            return {}
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[VersionStatistics] = loop.create_future()
        self._ring.put(StatisticsRequest(answer, loop))
        return await answer

    def request_traced(
        self,
        *,
        method: str,
        target: str,
        status: int,
        received: float,
        responded: float,
        worker: str,
        model: str,
        label: str,
        request_id: str,
        sent: float,
        replied: float,
        handler: float,
        traceparent: str,
        tracestate: str,
    ) -> None:
        """A prediction is over, for which there is to be a trace; only with `opentelemetry_traces`.

        `handler`: seconds inside the handler, 0 if unknown. The last two are the headers of W3C trace context.
        """
        # fmt: off
        accepted = self._ring.offer_spare(RequestTraced(
            method, target, status, received, responded,
            worker, model, label, request_id, sent, replied, handler, traceparent, tracestate,
        ))
        # fmt: on
        if not accepted and not self._traces_missing:
            self._traces_missing = True
            text = "Predictions come faster than their traces can be made, so some are missing: have them sampled, "
            text += "OTEL_TRACES_SAMPLER=parentbased_traceidratio and OTEL_TRACES_SAMPLER_ARG=0.01."
            self.log("WARN", "telemetry", text)

    def flush(self) -> None:
        """Return when everything recorded so far is written."""
        self._writer.flush()

    def close(self) -> None:
        """Write everything and let go of the files. What is recorded afterwards is lost."""
        self._writer.stop()
        if self._traces is not None:
            self._traces.close()

    def _observe(self, latencies: Latencies | None, wanted: bool) -> None:
        """Let those who are asked for see the records, too."""
        if latencies is not None:
            self._writer.also(WorkerLoaded, latencies.loaded)
            self._writer.also(BatchDone, latencies.batch)
            self._writer.also(RequestDone, latencies.request)
        elif wanted:
            text = "metrics_histograms has no effect in this mode: set metrics_mode=prometheus"
            self.log("WARN", "metrics.MetricCache", text)
        if self._statistics is not None:
            self._writer.also(VersionsChanged, self._statistics.versions)
            self._writer.also(BatchDone, self._statistics.batch)
            self._writer.also(RequestDone, self._statistics.request)
            self._writer.also(StatisticsRequest, self._statistics.answer)
        if self._traces is not None:
            self._writer.also(WorkerLoaded, self._traces.free.loaded)
            self._writer.also(BatchDone, self._traces.free.replied)
            self._writer.also(RequestTraced, self._traces.write)

    def _report(self, definitions: Definitions, path: str) -> None:
        for error in definitions.errors:
            self.log("ERROR", "metrics.MetricCache", f"Failed to load metrics configuration: {error}")
        for warning in definitions.warnings:
            self.log("WARN", "metrics.configuration.MetricConfiguration", warning)
        if not definitions.errors:
            logger = "metrics.configuration.MetricConfiguration"
            self.log("INFO", logger, f"Successfully loaded metrics configuration from {path}")
