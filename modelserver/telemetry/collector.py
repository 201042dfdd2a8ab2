"""The collector command: a script of the user that prints metrics of the machine and the memory of the workers."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from modelserver.telemetry import metric_lines
from modelserver.telemetry.records import Reading

TEXT_LIMIT: Final = 1 << 20  # bytes kept of what it prints: a broken script prints without end
_READ: Final = 1 << 16


@dataclass(slots=True)
class Report:
    """What one run told."""

    readings: list[Reading] = field(default_factory=list)
    memory: dict[int, int] = field(default_factory=dict)  # pid -> bytes
    unreadable: list[str] = field(default_factory=list)  # lines
    complaint: str = ""  # of the command, or about it


class Collector:
    """Runs the command, one run at a time."""

    def __init__(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str], patience: float
    ) -> None:
        """`patience`: seconds that a run may take."""
        self._command = command
        self._directory = directory
        self._environment = environment
        self._patience = patience
        self._running: subprocess.Popen[bytes] | None = None
        self._closed = False

    def run(self, pids: Iterable[int]) -> Report:
        """One report on the machine and these processes. Blocks; never raises."""
        try:
            process = self._start()
        except (OSError, ValueError) as error:
            return Report(complaint=f"{self._command[0]} cannot be started: {error}")
        if self._closed:  # meanwhile
            self._kill()
        with process:
            try:
                output, complaint = self._talk(process, ",".join(map(str, pids)))
            except TimeoutError:
                self._kill()
                return Report(complaint=f"no end within {self._patience:g} s: {' '.join(self._command)}")
        report = read_report(output)
        report.complaint = complaint.strip() or _outcome(process.returncode)
        return report

    def close(self) -> None:
        """End the run, if there is one, and whatever begins now."""
        self._closed = True
        self._kill()

    def _kill(self) -> None:
        """End a run, with all that the command has started: whoever holds its pipes would keep us waiting."""
        if self._running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._running.pid, signal.SIGKILL)

    def _start(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        self._running = subprocess.Popen(
            self._command,
            cwd=self._directory,
            env=self._environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )
        return self._running

    def _talk(self, process: subprocess.Popen[bytes], order: str) -> tuple[str, str]:
        """Both outputs. Raises TimeoutError."""
        assert process.stdin and process.stdout and process.stderr
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(f"{order}\n".encode())
        try:
            output, complaint = _listen([process.stdout, process.stderr], time.monotonic() + self._patience)
            process.wait(self._patience)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            if process.poll() is not None:
                self._running = None
        return output, complaint


def _listen(pipes: Sequence[IO[Any]], until: float) -> list[str]:
    """What arrives on each before all have ended. Raises TimeoutError at that monotonic moment."""
    texts = {pipe.fileno(): bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as selector:
        for descriptor in texts:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            events = selector.select(max(0.0, until - time.monotonic()))
            if not events and time.monotonic() >= until:
                raise TimeoutError
            for key, _ in events:
                piece, text = os.read(key.fd, _READ), texts[key.fd]
                text += piece[: TEXT_LIMIT - len(text)]
                if not piece:
                    selector.unregister(key.fd)
    return [text.decode("utf-8", "replace") for text in texts.values()]


def read_report(output: str) -> Report:
    """Metric lines, an empty line, then `<pid>:<bytes>` lines."""
    report = Report()
    lines = iter(output.splitlines())
    for line in iter(lambda: next(lines, ""), ""):
        if metric := metric_lines.parse(line):
            report.readings.append(Reading(metric.name, metric.value, tuple(value for _, value in metric.dimensions)))
        else:
            report.unreadable.append(line)
    for line in filter(None, lines):
        pid, _, size = line.partition(":")
        if pid.strip().isdecimal() and size.strip().isdecimal():
            report.memory[int(pid)] = int(size)
        else:
            report.unreadable.append(line)
    return report


def _outcome(status: int) -> str:
    return f"ended with status {status}" if status else ""
