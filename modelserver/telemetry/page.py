"""Log lines as text, and the page that collects those of one write, sink by sink."""

from __future__ import annotations

from typing import Final

# Sinks of a page. The console text goes to standard output and, the same bytes, to ts_log.log.
CONSOLE, ACCESS, MODEL, TS_METRICS, MODEL_METRICS = range(5)

SERVER_PREFIX: Final = "org.pytorch.serve."

_RANKS: Final = {"ALL": 0, "TRACE": 1, "DEBUG": 2, "INFO": 3, "WARN": 4, "ERROR": 5, "FATAL": 6, "OFF": 7}
_FOREIGN_LEVELS: Final = {"WARNING": "WARN", "CRITICAL": "FATAL"}

_NOT_IN_THREADS: Final = str.maketrans(dict.fromkeys(" \t\n\r\v\f:", "_"))


def level_rank(level: str) -> int:
    """How grave a level is, in any letter case; an unknown one counts as INFO."""
    name = level.upper()
    return _RANKS.get(_FOREIGN_LEVELS.get(name, name), _RANKS["INFO"])


def thread_name(text: str) -> str:
    """A thread name without blanks and colons, on which parsers of the lines rely."""
    return text.translate(_NOT_IN_THREADS)


class Page:
    """Lines by sink. Dates and messages come as text; `thread` has passed `thread_name`."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: tuple[list[str], ...] = ([], [], [], [], [])

    def server(self, date: str, level: str, thread: str, logger: str, message: str) -> None:
        """A line of the server; `logger` without its prefix."""
        self.lines[CONSOLE].append(_full(date, level, thread, SERVER_PREFIX + logger, message))

    def access(self, date: str, thread: str, message: str) -> None:
        """A line of the access log."""
        self.lines[CONSOLE].append(_full(date, "INFO", thread, "ACCESS_LOG", message))
        self.lines[ACCESS].append(_short(date, message))

    def model(self, date: str, level: str, thread: str, message: str) -> None:
        """A line that a worker wrote."""
        line = _full(date, level, thread, "MODEL_LOG", message)
        self.lines[CONSOLE].append(line)
        self.lines[MODEL].append(line)

    def ts_metric(self, date: str, thread: str, message: str) -> None:
        """An update of a server metric."""
        self.lines[CONSOLE].append(_full(date, "INFO", thread, "TS_METRICS", message))
        self.lines[TS_METRICS].append(_short(date, message))

    def model_metric(self, date: str, thread: str, message: str) -> None:
        """An update of a worker metric."""
        self.lines[CONSOLE].append(f"{date} [INFO ] {thread} MODEL_METRICS - {message}\n")
        self.lines[MODEL_METRICS].append(f"{date} - {message}\n")

    def take(self, sink: int) -> bytes:
        """The text of a sink as UTF-8, which is then empty."""
        lines = self.lines[sink]
        text = "".join(lines)
        lines.clear()
        return text.encode("utf-8", "backslashreplace")


def _full(date: str, level: str, thread: str, logger: str, message: str) -> str:
    return f"{date} [{level:<5}] {thread} {logger} - {message}\n"


def _short(date: str, message: str) -> str:
    return f"{date} - {message}\n"
