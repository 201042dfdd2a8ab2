"""Where pages go: standard output, standard error, and files."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from modelserver.logconfig.failures import Failures
from modelserver.logconfig.plan import Appender, Complaint, FileTarget, StreamTarget
from modelserver.telemetry.clock import Clock
from modelserver.telemetry.console import Console
from modelserver.telemetry.files import LogFile
from modelserver.telemetry.layouts import LogEvent
from modelserver.telemetry.page import SERVER_PREFIX, Page
from modelserver.telemetry.routes import Routes


class Outlets:
    """The outlets of all sinks."""

    def __init__(self, clock: Clock, routes: Routes, stdout: BinaryIO | None = None) -> None:
        """Open everything."""
        self._clock = clock
        self._routes = routes
        self._failures = Failures("telemetry")
        self._consoles = {1: Console(stdout, self._complain_in_log)}
        self._files: dict[Path, LogFile] = {}
        self._sinks = [[self._open(appender) for appender in sink.appenders] for sink in routes.sinks]

    def write(self, page: Page) -> None:
        """Write the page and leave it empty: one write an outlet."""
        for number, outlets in enumerate(self._sinks):
            if text := page.take(number):
                for write in outlets:
                    try:
                        write(text)
                    except Exception:  # nothing that is foreseen: the others get their lines all the same
                        self._failures.report()

    def announce(self, line: str) -> None:
        """A bare line on standard output alone."""
        self._consoles[1].write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def report(self, complaints: Iterable[Complaint]) -> None:
        """Bare lines about a configuration; those why it is not used at all go to standard error."""
        for complaint in complaints:
            if complaint.level == "ERROR":
                print(self._bare(complaint), file=sys.stderr, flush=True)
            else:
                self.announce(self._bare(complaint))

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        if self._routes.python:
            logging.shutdown()

    def _open(self, appender: Appender) -> Callable[[bytes], None]:
        match appender.target:
            case StreamTarget(descriptor):
                return self._console(descriptor).write
            case FileTarget() as target:
                return self._file(target).write
        return lambda text: None

    def _console(self, descriptor: int) -> Console:
        if descriptor not in self._consoles:
            self._consoles[descriptor] = Console(None, self._complain_in_log, descriptor=descriptor)
        return self._consoles[descriptor]

    def _file(self, target: FileTarget) -> LogFile:
        if target.path not in self._files:
            self._files[target.path] = LogFile(target, self._clock, self._complain_on_stdout)
        return self._files[target.path]

    def _bare(self, complaint: Complaint) -> str:
        date = self._clock.date(self._clock.now()).replace("T", " ")
        return f"{date} main {complaint.level} {complaint.text}"

    def _complain_on_stdout(self, message: str) -> None:
        self.announce(self._bare(Complaint(message, "ERROR")))

    def _complain_in_log(self, message: str) -> None:
        """A line of the server in the files, because a console cannot be written."""
        logger, stamp = f"{SERVER_PREFIX}telemetry", self._clock.stamp(self._clock.monotonic())
        for number in self._routes.find(logger, "WARN"):
            sink = self._routes.sinks[number]
            text = sink.layout.render(LogEvent(stamp, "WARN", logger, "main", message))
            for appender in sink.appenders:
                if isinstance(appender.target, FileTarget):
                    self._file(appender.target).write(text.encode())
