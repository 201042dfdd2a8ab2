"""Puts single lines and metric updates on the current page; what it needs for that, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from modelserver.logconfig.plan import MODEL_METRICS, TELEMETRY_METRICS, TS_METRICS
from modelserver.telemetry.catalogue import Catalogue, Series
from modelserver.telemetry.clock import Clock, Stamp
from modelserver.telemetry.doubles import java_double
from modelserver.telemetry.forms import Form, field
from modelserver.telemetry.page import SERVER_PREFIX, Page, thread_name
from modelserver.telemetry.records import MetricUpdate, ServerLine
from modelserver.telemetry.routes import Routes

_FORMS: Final = 4096
_COMPLAINTS: Final = 1000  # remembered, so that they are not repeated; names in them come from handlers
_FIELDS: Final = ("date", "message", "date_at", "record")


class Source:
    """Where updates of worker metrics come from: the thread that their lines name, the host if it is not this one.

    Most updates of a name repeat the dimensions of its last one, whose series is kept for them.
    """

    __slots__ = ("form", "hostname", "series", "thread")

    def __init__(self, thread: str, hostname: str = "") -> None:
        self.thread = thread
        self.hostname = hostname
        self.form: Form | None = None  # of the lines of its updates
        self.series: dict[str, tuple[Sequence[tuple[str, str]], Series]] = {}


class Scribe:
    """The current page, the clock that dates it, and the metrics. The writer thread alone uses it."""

    def __init__(self, clock: Clock, catalogue: Catalogue, hostname: str, routes: Routes) -> None:
        self.page = Page(routes)
        self.routes = routes
        self.clock = clock
        self.catalogue = catalogue
        self.hostname = hostname
        self._forms: dict[tuple[str, str, str], Form] = {}
        self._logs_model_metrics = bool(routes.find(MODEL_METRICS, "INFO"))
        self._complained: set[tuple[str, str]] = set()

    def line(self, stamp: Stamp, level: str, logger: str, thread: str, message: str) -> None:
        """One event of a logger; `thread` has passed `thread_name`."""
        form = self._forms.get((level, logger, thread)) or self._new_form(level, logger, thread)
        form.write((stamp.date, message, stamp, None))

    def _new_form(self, level: str, logger: str, thread: str) -> Form:
        form = Form(self.page, thread)
        form.line("date", level, logger, field("message"))
        if len(self._forms) >= _FORMS:
            self._forms.clear()
        self._forms[level, logger, thread] = form.finish(_FIELDS)
        return form

    def server_line(self, line: ServerLine) -> None:
        """One line of the server."""
        stamp, thread = self.clock.stamp(line.moment), thread_name(line.thread)
        logger = line.logger if line.logger == TELEMETRY_METRICS else SERVER_PREFIX + line.logger
        self.line(stamp, line.level, logger, thread, f"{line.message}")

    def complain(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        """A line of telemetry's own, dated now."""
        self.line(self.clock.stamp(self.clock.monotonic()), level, SERVER_PREFIX + logger, thread, message)

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
            try:
                series.store(value)
            except ValueError as error:
                self._complain_once("metrics.MetricCache", f"Failed to update frontend metric {name}: {error}", "main")
            return
        stamp = self.clock.stamp(moment)
        message = f"{series.head}{java_double(value)}{series.tail}timestamp:{stamp.seconds}"
        self.line(stamp, "INFO", TS_METRICS, thread, message)

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
        if not self._logs_model_metrics:
            return
        tail = f"{series.tail}requestID:{update.request_ids or 'null'},timestamp:{stamp.seconds}"
        message = f"{series.head}{java_double(update.value)}{tail}"
        if source.form is None:
            source.form = self._new_form("INFO", MODEL_METRICS, source.thread)
        source.form.write((stamp.date, message, stamp, None))

    def _model_series(self, update: MetricUpdate, source: Source) -> Series | None:
        dimensions = update.dimensions
        last = source.series.get(update.name)
        if last is not None and last[0] == dimensions:
            return last[1]
        values = (*[value for _, value in dimensions], source.hostname or self.hostname)
        series = self.catalogue.model.series(update.name, values)
        if series is None and self.catalogue.detects:
            series = self._detect(update, values, source)
        if series is not None:
            source.series[update.name] = dimensions, series
        return series

    def _detect(self, update: MetricUpdate, values: tuple[str, ...], source: Source) -> Series | None:
        self.catalogue.detect(update)
        series = self.catalogue.model.series(update.name, values)
        assert series is not None
        ids = f"requestID:{update.request_ids}," if update.request_ids else ""
        shown = f"{series.head}{java_double(update.value)}{series.tail}{ids}timestamp:{int(self.clock.now())}"
        message = f"Registering auto detected backend metric: {shown}"
        self.complain("INFO", "wlm.WorkerLifeCycle", message, source.thread)
        return series

    def _complain_once(self, logger: str, message: str, thread: str) -> None:
        # A wrong definition fails at every request: one line says as much as thousands.
        if len(self._complained) >= _COMPLAINTS:
            self._complained.clear()
        if (logger, message) not in self._complained:
            self._complained.add((logger, message))
            self.complain("ERROR", logger, message, thread)
