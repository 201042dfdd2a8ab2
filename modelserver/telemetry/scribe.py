"""Puts single lines and metric updates on the current page; what it needs for that, in one place."""

from __future__ import annotations

from collections.abc import Sequence

from modelserver.telemetry.catalogue import Catalogue, Series
from modelserver.telemetry.clock import Clock, Stamp
from modelserver.telemetry.doubles import java_double
from modelserver.telemetry.page import Page, level_rank, thread_name
from modelserver.telemetry.records import MetricUpdate, ServerLine

_DEBUG, _INFO = level_rank("DEBUG"), level_rank("INFO")


class Source:
    """Where updates of worker metrics come from: the thread that their lines name, the host if it is not this one.

    Most updates of a name repeat the dimensions of its last one, whose series is kept for them.
    """

    __slots__ = ("hostname", "series", "thread")

    def __init__(self, thread: str, hostname: str = "") -> None:
        self.thread = thread
        self.hostname = hostname
        self.series: dict[str, tuple[Sequence[tuple[str, str]], Series]] = {}


class Scribe:
    """The current page, the clock that dates it, and the metrics. The writer thread alone uses it."""

    def __init__(self, clock: Clock, catalogue: Catalogue, hostname: str, log_level: str | None) -> None:
        self.page = Page()
        self.clock = clock
        self.catalogue = catalogue
        self.hostname = hostname
        # Lines of every request: at DEBUG only where that was asked for, because they cost more than the request.
        self.writes_debug = log_level is not None and level_rank(log_level) <= _DEBUG
        self.writes_info = log_level is None or level_rank(log_level) <= _INFO
        self._complained: set[tuple[str, str]] = set()

    def server_line(self, line: ServerLine) -> None:
        """One line of the server."""
        date = self.clock.stamp(line.moment).date
        self.page.server(date, line.level, thread_name(line.thread), line.logger, line.message)

    def complain(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        """A line of telemetry's own, dated now."""
        self.page.server(self.clock.date(self.clock.now()), level, thread, logger, message)

    def server_series(self, name: str, labels: tuple[str, ...]) -> Series | None:
        """The series of a server metric, the host name added last; None if it is not defined, or defined wrongly."""
        try:
            return self.catalogue.server.series(name, (*labels, self.hostname))
        except ValueError as error:
            self._complain_once("metrics.MetricCache", f"Failed to update frontend metric {name}: {error}", "main")
            return None

    def update_server(self, name: str, labels: tuple[str, ...], value: float, moment: float, thread: str) -> None:
        """Take in one update of a server metric."""
        series = self.server_series(name, labels)
        if series is None:
            return
        if series.store is not None:
            series.store(value)
            return
        stamp = self.clock.stamp(moment)
        message = f"{series.head}{java_double(value)}{series.tail}timestamp:{stamp.seconds}"
        self.page.ts_metric(stamp.date, thread, message)

    def update_model(self, update: MetricUpdate, stamp: Stamp, source: Source) -> None:
        """Take in one update of a worker metric; unknown names are dropped."""
        try:
            series = self._model_series(update, source)
            if series is None:
                return
            if series.store is not None:
                series.store(update.value)
                return
        except ValueError as error:
            message = f"Failed to update backend metric {update.name}: {error}"
            self._complain_once("wlm.WorkerLifeCycle", message, source.thread)
            return
        tail = f"{series.tail}requestID:{update.request_ids or 'null'},timestamp:{stamp.seconds}"
        self.page.model_metric(stamp.date, source.thread, f"{series.head}{java_double(update.value)}{tail}")

    def _model_series(self, update: MetricUpdate, source: Source) -> Series | None:
        dimensions = update.dimensions
        last = source.series.get(update.name)
        if last is not None and last[0] == dimensions:
            return last[1]
        values = (*[value for _, value in dimensions], source.hostname or self.hostname)
        series = self.catalogue.model.series(update.name, values)
        if series is not None:
            source.series[update.name] = dimensions, series
        return series

    def _complain_once(self, logger: str, message: str, thread: str) -> None:
        # A wrong definition fails at every request: one line says as much as thousands.
        if (logger, message) not in self._complained:
            self._complained.add((logger, message))
            self.complain("ERROR", logger, message, thread)
