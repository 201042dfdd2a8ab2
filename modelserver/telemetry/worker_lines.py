"""What workers say for themselves: printed lines, metrics outside a batch, that they have loaded."""

from __future__ import annotations

from typing import Final

from modelserver.logconfig.plan import MODEL_LOG
from modelserver.telemetry import metric_lines
from modelserver.telemetry.page import thread_name
from modelserver.telemetry.records import Printed, WorkerLoaded, WorkerMetrics
from modelserver.telemetry.scribe import Scribe, Source

_API_ERROR: Final = (
    "Failed to update metric with name:"  # printed by the handlers' metrics API, with the prefix of a metric
)


class WorkerLines:
    """Expands the records of workers."""

    def __init__(self, scribe: Scribe) -> None:
        self._scribe = scribe

    def printed(self, record: Printed) -> None:
        """A line of model output, or a metric update in disguise."""
        thread = f"{thread_name(record.worker)}-{record.stream}"
        if record.line.startswith(metric_lines.PREFIXES):
            self._metric(record, thread)
            return
        level = "WARN" if record.stream == "stderr" else "INFO"
        self._scribe.line(self._scribe.clock.stamp(record.moment), level, MODEL_LOG, thread, record.line)

    def loaded(self, record: WorkerLoaded) -> None:
        """The time to load, and, as loading is a round trip, the whole milliseconds that the server itself took."""
        labels, thread = (record.worker, "Host"), thread_name(record.worker)
        self._scribe.update_server("WorkerLoadTime", labels, float(int(record.milliseconds)), record.moment, thread)
        self._scribe.update_server("WorkerThreadTime", ("Host",), 0.0, record.moment, thread)

    def metrics(self, record: WorkerMetrics) -> None:
        """Updates through the metrics API outside a batch."""
        source = Source(thread_name(record.worker) + "-stdout")
        stamp = self._scribe.clock.stamp(record.moment)
        for metric in record.metrics:
            self._scribe.update_model(metric, stamp, source)

    def _metric(self, record: Printed, thread: str) -> None:
        metric = metric_lines.parse(record.line)
        if metric is not None:
            self._scribe.update_model(metric, self._scribe.clock.stamp(record.moment), Source(thread, metric.hostname))
            return
        text = metric_lines.message(record.line)
        if not text.startswith(_API_ERROR):
            text = f'Failed to parse metrics line: "{record.line}".'
        self._scribe.complain("ERROR", "wlm.WorkerLifeCycle", text, thread)
