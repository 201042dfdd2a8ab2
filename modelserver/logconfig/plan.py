"""A log configuration as data: which loggers pass which levels to which appenders, and what these write where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = ""  # the name of the root among the loggers
SERVER: Final = "org.pytorch.serve"  # what the server itself says is logged below this name
ACCESS_LOG: Final = "ACCESS_LOG"
MODEL_LOG: Final = "MODEL_LOG"
TS_METRICS: Final = "TS_METRICS"
MODEL_METRICS: Final = "MODEL_METRICS"
TELEMETRY_METRICS: Final = "TELEMETRY_METRICS"  # what a cloud platform counts


@dataclass(frozen=True)
class PatternLayout:
    """A line by a log4j2 pattern."""

    pattern: str


@dataclass(frozen=True)
class JsonLayout:
    """One JSON object per event, in one line."""


@dataclass(frozen=True)
class MetricJsonLayout:
    """One JSON object over several lines per metric; of other events the message."""


@dataclass(frozen=True)
class QueryLogLayout:
    """One record of `Name=value` lines per metric, nothing of other events."""


Layout = PatternLayout | JsonLayout | MetricJsonLayout | QueryLogLayout


@dataclass(frozen=True)
class Rolling:
    """When a file is moved away, and how archives are named; `pattern` has `%d{...}` and `%i`, `.gz` packs them."""

    pattern: str
    size: int = 0  # bytes; 0: whatever the size
    interval: int = 0  # in units of the finest field of the pattern's date; 0: whatever the time
    modulate: bool = False  # intervals begin where their unit does, not with the file
    at_start: bool = False
    keep: int = 0  # archives; 0: all


@dataclass(frozen=True)
class StreamTarget:
    """Standard output or standard error."""

    descriptor: int = 1


@dataclass(frozen=True)
class FileTarget:
    """A file that grows, or rolls."""

    path: Path
    append: bool = True
    rolling: Rolling | None = None


@dataclass(frozen=True)
class PythonTarget:
    """The loggers of Python's `logging`, configured by whoever wrote the configuration; they format by themselves."""


@dataclass(frozen=True)
class NoTarget:
    """Nowhere."""


Target = StreamTarget | FileTarget | PythonTarget | NoTarget


@dataclass(frozen=True)
class Appender:
    """Where lines go and how they look; `threshold` is the lowest level it takes."""

    name: str
    target: Target
    layout: Layout
    threshold: str = "ALL"


@dataclass(frozen=True)
class Reference:
    """A logger's way to an appender, for events of that level and above."""

    appender: str
    level: str = "ALL"


@dataclass(frozen=True)
class LoggerRule:
    """What becomes of the events of a logger and of those below it. Without a level that of the next rule above."""

    level: str | None
    references: tuple[Reference, ...] = ()
    additive: bool = True  # appenders of the rules above get the events too


@dataclass(frozen=True)
class Complaint:
    """What of a configuration has no effect (`WARN`), or why it is not used at all (`ERROR`)."""

    text: str
    level: str = "WARN"


@dataclass(frozen=True)
class Plan:
    """A whole configuration, with what its source has got wrong."""

    appenders: tuple[Appender, ...]
    loggers: Mapping[str, LoggerRule]  # by name
    # Lines at DEBUG about every single request cost more than the request. So it is not enough that the level would let
    # them pass: the built-in plan does, and they are not written.
    request_debug: bool = True
    complaints: tuple[Complaint, ...] = ()
