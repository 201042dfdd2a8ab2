"""Where pages go: standard output and the five log files."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from modelserver.telemetry.clock import Clock
from modelserver.telemetry.console import Console
from modelserver.telemetry.files import LogFile
from modelserver.telemetry.page import ACCESS, CONSOLE, MODEL, MODEL_METRICS, TS_METRICS, Page

Files = dict[int, LogFile]


class Outlets:
    """All sinks. Nothing here raises: what cannot be written is lost, with one complaint."""

    def __init__(self, clock: Clock, stdout: BinaryIO | None, logs: Path | None, metrics: Path | None) -> None:
        """Open everything; without directories there are no files."""
        self._clock = clock
        self._console = Console(stdout, self._complain_in_log)
        self._files: Files = {}
        if logs is not None and metrics is not None:
            self._files = self._open_files(logs, metrics)

    def write(self, page: Page) -> None:
        """Write the page and leave it empty: one write a sink."""
        if text := page.take(CONSOLE):
            self._console.write(text)
            self._write_file(CONSOLE, text)
        for sink in (ACCESS, MODEL, TS_METRICS, MODEL_METRICS):
            if text := page.take(sink):
                self._write_file(sink, text)

    def announce(self, line: str) -> None:
        """A bare line on standard output alone."""
        self._console.write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _open_files(self, logs: Path, metrics: Path) -> Files:
        paths = {
            CONSOLE: logs / "ts_log.log",
            ACCESS: logs / "access_log.log",
            MODEL: logs / "model_log.log",
            TS_METRICS: metrics / "ts_metrics.log",
            MODEL_METRICS: metrics / "model_metrics.log",
        }
        return {sink: LogFile(path.absolute(), self._clock, self._complain_on_stdout) for sink, path in paths.items()}

    def _write_file(self, sink: int, text: bytes) -> None:
        if file := self._files.get(sink):
            file.write(text)

    def _complain_on_stdout(self, message: str) -> None:
        date = self._clock.date(self._clock.now()).replace("T", " ")
        self.announce(f"{date} main ERROR {message}")

    def _complain_in_log(self, message: str) -> None:
        page = Page()
        page.server(self._clock.date(self._clock.now()), "WARN", "main", "telemetry", message)
        self._write_file(CONSOLE, page.take(CONSOLE))
