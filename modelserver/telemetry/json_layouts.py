"""Events as JSON, and metrics as JSON or as records of a query log."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from modelserver.logconfig.plan import ACCESS_LOG, MODEL_METRICS, TS_METRICS
from modelserver.telemetry.clock import MILLISECOND, Stamp, nanoseconds
from modelserver.telemetry.java_dates import local_time
from modelserver.telemetry.layouts import LogEvent
from modelserver.telemetry.records import BatchDone, RequestDone

_METRIC_LOGGERS: Final = (TS_METRICS, MODEL_METRICS)
_WORKER: Final = re.compile(r"W-(?P<worker>\d+)-(?P<model>.+)_(?P<version>.+?)(?:-(?P<stream>stdout|stderr))?")
_FIXED: Final = 4096  # beginnings and ends of lines remembered


class JsonLines:
    """One object per event: when, what and who, and everything known about it under names of its own."""

    plain = False

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._fixed: dict[tuple[str, str, str, str], tuple[str, str]] = {}
        self._metrics: dict[tuple[str, str, str, str], tuple[str, str]] = {}
        self._second = ""
        self._offset = ""

    def render(self, event: LogEvent) -> str:
        """One line."""
        try:
            return self._line(event)
        except UnicodeEncodeError:  # what clients and models send need not be Unicode
            head = {"time": self._time(event.stamp), "level": event.level, "thread": event.thread}
            fields = {**head, "logger": event.logger, "message": event.message, **details(event)}
            return json.dumps(fields, separators=(",", ":")) + "\n"

    def _line(self, event: LogEvent) -> str:
        """Most of a line is the same for all events of a logger and thread, and encoded once."""
        record = event.record
        model = record.model if isinstance(record, RequestDone) else ""
        key = event.level, event.logger, event.thread, model
        begin, end = self._fixed.get(key) or self._new_fixed(key)
        message = self._encode(event.message).decode()
        more = self._metric(event) if event.logger in _METRIC_LOGGERS else self._members(_known(event))
        return f'{{"time":"{self._time(event.stamp)}"{begin},"message":{message}{end}{more}}}\n'

    def _new_fixed(self, key: tuple[str, str, str, str]) -> tuple[str, str]:
        level, logger, thread, model = key
        begin = self._members({"level": level, "thread": thread, "logger": logger})
        if len(self._fixed) >= _FIXED:
            self._fixed.clear()
        fixed = self._fixed[key] = begin, self._members(_of_thread(thread, model))
        return fixed

    def _metric(self, event: LogEvent) -> str:
        """Members for a metric; of its updates only value and request differ."""
        metric = Metric.parse(event.message)
        if metric is None:
            return ""
        key = metric[:4]
        begin, end = self._metrics.get(key) or self._new_metric(key, metric)
        return f"{begin}{metric.value if metric.finite else self._encode(metric.value).decode()}{end}" + (
            f',"request_id":{self._encode(metric.request_id).decode()}' if metric.request_id else ""
        )

    def _new_metric(self, key: tuple[str, str, str, str], metric: Metric) -> tuple[str, str]:
        if len(self._metrics) >= _FIXED:
            self._metrics.clear()
        fields = {"unit": metric.unit, "dimensions": dict(metric.dimensions), "hostname": metric.hostname}
        fixed = self._metrics[key] = f'{self._members({"metric": metric.name})},"value":', self._members(fields)
        return fixed

    def _members(self, fields: dict[str, Any]) -> str:
        """Members of an object, a comma before each."""
        return f",{self._encode(fields)[1:-1].decode()}" if fields else ""

    def _time(self, stamp: Stamp) -> str:
        """ISO 8601 with the offset, which is the same for a whole second at least."""
        if stamp.seconds != self._second:
            self._second, self._offset = stamp.seconds, local_time(stamp).isoformat()[-6:]
        return f"{stamp.date[:19]}.{stamp.date[20:]}{self._offset}"


def details(event: LogEvent) -> dict[str, Any]:
    """What is known about an event beside its text, under names of its own."""
    record = event.record
    model = record.model if isinstance(record, RequestDone) else ""
    return _of_thread(event.thread, model) | _known(event)


@lru_cache(4096)
def _of_thread(thread: str, model: str) -> dict[str, str]:
    """What the name of a thread tells; the model itself is known better where there is a record."""
    match = _WORKER.fullmatch(thread)
    fields = {name: text for name, text in match.groupdict().items() if text} if match else {}
    return {**fields, "model": model} if model else fields


def _known(event: LogEvent) -> dict[str, Any]:
    """What the record or, of a metric, the message tells."""
    if event.logger in _METRIC_LOGGERS:
        metric = Metric.parse(event.message)
        return metric.fields() if metric else {}
    record = event.record
    if isinstance(record, RequestDone):
        return _of_request(record, access=event.logger == ACCESS_LOG)
    return {"request_ids": list(record.ids)} if isinstance(record, BatchDone) else {}


def _of_request(record: RequestDone, *, access: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"request_id": record.request_id} if record.request_id else {}
    if access:
        fields |= {
            "remote": record.remote.removeprefix("/"),
            "method": record.method,
            "path": record.target,
            "protocol": record.version,
            "status": record.status,
            "duration_ms": nanoseconds(record.received, record.responded) // MILLISECOND,
        }
    return fields


class Metric(NamedTuple):
    """One update as the line of a metric tells it."""

    name: str
    unit: str
    labels: str
    hostname: str
    value: str
    request_id: str  # "" without one
    timestamp: str

    @staticmethod
    def parse(message: str) -> Metric | None:
        """`HandlerTime.ms:1.5|#ModelName:probe,Level:Model|#hostname:node1,requestID:id,timestamp:1795176000`."""
        head, _, rest = message.partition("|#")
        labels, found, end = rest.rpartition("|#hostname:")
        if not found:
            return None
        name, _, value = head.rpartition(":")
        name, _, unit = name.rpartition(".")
        hostname, _, end = end.partition(",")
        ids, _, timestamp = end.rpartition("timestamp:")
        request_id = ids.removeprefix("requestID:").removesuffix(",")
        return Metric(name, unit, labels, hostname, value, "" if request_id == "null" else request_id, timestamp)

    @property
    def dimensions(self) -> tuple[tuple[str, str], ...]:
        """Names and values of the labels."""
        pairs = (piece.partition(":") for piece in self.labels.split(",") if piece)
        return tuple((name, value) for name, _, value in pairs)

    @property
    def finite(self) -> bool:
        """Whether JSON has a number for the value: it has none for infinities and NaN."""
        return self.value[-1:].isdigit()

    def fields(self) -> dict[str, Any]:
        """As attributes of a record."""
        fields: dict[str, Any] = {
            "metric": self.name,
            "value": float(self.value) if self.finite else self.value,
            "unit": self.unit,
            "dimensions": dict(self.dimensions),
            "hostname": self.hostname,
        }
        return {**fields, "request_id": self.request_id} if self.request_id else fields


def _metric(event: LogEvent) -> Metric | None:
    return Metric.parse(event.message) if event.logger in _METRIC_LOGGERS else None


class MetricObjects:
    """A metric as an object over several lines, under the names that CloudWatch knows; else the bare message."""

    plain = False

    def render(self, event: LogEvent) -> str:
        """An object, or the message."""
        metric = _metric(event)
        if metric is None:
            return f"{event.message}\n"
        fields = {
            "MetricName": metric.name,
            "Value": metric.value,
            "Unit": metric.unit,
            "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions],
            "DimensionNames": [name for name, _ in metric.dimensions],
            "DimensionValues": [value for _, value in metric.dimensions],
            "Timestamp": metric.timestamp,
            "RequestId": metric.request_id or None,
            "HostName": metric.hostname,
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None}, indent=2) + "\n"


class QueryLog:
    """A metric as a record of `Name=value` lines that ends with `EOE`; nothing of other events."""

    plain = False

    def __init__(self) -> None:
        self._program = os.environ.get("MXNETMODELSERVER_PROGRAM") or "MXNetModelServer"
        realm = os.environ.get("REALM")
        self._marketplace = f"{self._program}:{os.environ.get('DOMAIN') or 'Unknown'}:{realm}" if realm else ""

    def render(self, event: LogEvent) -> str:
        """A record, or nothing."""
        metric = _metric(event)
        return "\n".join([*self._lines(metric), ""]) if metric else ""

    def _lines(self, metric: Metric) -> list[str]:
        dimensions = "".join(f" {name}|{value}" for name, value in metric.dimensions)
        return [
            f"HostName={metric.hostname}",
            *([f"RequestId={metric.request_id}"] if metric.request_id else []),
            *([f"Marketplace={self._marketplace}"] if self._marketplace else []),
            f"StartTime={metric.timestamp}",
            f"Program={self._program}",
            f"Metrics={metric.name}={metric.value} {metric.unit}{dimensions}",
            "EOE",
        ]
