"""Events handed to the loggers of Python's `logging`, for configurations that are made for it."""

from __future__ import annotations

import logging
from typing import Final

from modelserver.logconfig.failures import Failures
from modelserver.logconfig.levels import RANKS, level_rank
from modelserver.telemetry.json_layouts import details
from modelserver.telemetry.layouts import LogEvent

# By the ranks of our levels, which have one more at the lower end.
_LEVELS: Final = (1, 5, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL, 100)
# Attributes that every record has, so that formats may name them.
_ALWAYS: Final = dict.fromkeys(("model", "version", "worker", "request_id"), "")
_BUILT_IN: Final = frozenset(logging.makeLogRecord({}).__dict__)


def is_enabled(logger: str, rank: int) -> bool:
    """Whether a logger takes events of that rank."""
    return logging.getLogger(logger).isEnabledFor(_LEVELS[rank])


class PythonLoggers:
    """A layout that leaves no text: the handlers of the logger write, in the thread that renders."""

    plain = False

    def __init__(self) -> None:
        self._failures = Failures(logging.root)
        logging.addLevelName(_LEVELS[RANKS["TRACE"]], "TRACE")

    def render(self, event: LogEvent) -> str:
        """Hand the event over, with what is known about it as attributes of the record."""
        logger = logging.getLogger(event.logger)
        level = _LEVELS[level_rank(event.level)]
        record = logger.makeRecord(event.logger, level, "", 0, event.message, (), None)
        record.created = int(event.stamp.milliseconds) / 1000
        record.msecs = float(int(event.stamp.milliseconds) % 1000)
        record.threadName = event.thread
        for name, value in {**_ALWAYS, **details(event)}.items():
            if name not in _BUILT_IN:
                setattr(record, name, value)
        try:
            logger.handle(record)
        except Exception:  # of a filter; handlers report by themselves
            self._failures.report()
        return ""
