"""From the traces of a dead worker to its death certificate."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelserver.errors import Cause, Certificate
from modelserver.wire.frames import Failure

_KILLED_BY_KERNEL = 137  # how a shell or a launcher reports a child that got SIGKILL


@dataclass(slots=True)
class Remains:
    """What is known of a worker process after its end."""

    status: int | None = None  # raw wait status; None if nobody could reap it
    max_rss: int | None = None  # bytes
    connected: bool = False
    failure: Failure | None = None  # reported by the worker while it loaded
    reason: Certificate | None = None  # given by whoever had it killed
    killed: bool = False  # by us
    orphaned: bool = False  # the nursery died, which takes its workers with it
    last_output: Sequence[str] = ()


def certify(remains: Remains) -> Certificate:
    """The reason it was killed for, else the failure it reported, else what its exit status tells."""
    if remains.reason is not None:
        return replace(
            remains.reason,
            last_output=remains.reason.last_output or tuple(remains.last_output),
            max_rss=remains.reason.max_rss or remains.max_rss,
        )
    exit_code, signal_name = _read_status(remains.status)
    cause, detail = _explain(remains, exit_code, signal_name)
    return Certificate(
        cause=cause,
        detail=detail,
        traceback=remains.failure.traceback if remains.failure else "",
        last_output=tuple(remains.last_output),
        exit_code=exit_code,
        signal=signal_name,
        max_rss=remains.max_rss,
    )


def _read_status(status: int | None) -> tuple[int | None, str | None]:
    """Exit code and signal name; one of them is None."""
    if status is None:
        return None, None
    code = os.waitstatus_to_exitcode(status)
    return (code, None) if code >= 0 else (None, _signal_name(-code))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # real-time signals have no names


def _explain(remains: Remains, exit_code: int | None, signal_name: str | None) -> tuple[Cause, str]:
    if remains.failure is not None:
        return _cause_of(remains.failure), remains.failure.detail
    if signal_name == "SIGKILL" and remains.killed:
        return Cause.STOPPED, "stopped on request"
    if signal_name in ("SIGKILL", None) and exit_code is None and remains.orphaned:
        return Cause.SIGNAL, "killed because the nursery, its parent process, died"
    if signal_name == "SIGKILL" or exit_code == _KILLED_BY_KERNEL:
        return Cause.OUT_OF_MEMORY, "killed by SIGKILL, as the kernel does when memory runs out"
    if signal_name is not None:
        return Cause.SIGNAL, f"killed by {signal_name}"
    if exit_code is None:
        return Cause.EXIT, "process ended, its exit status is unknown"
    if remains.connected:
        return Cause.EXIT, f"process exited with status {exit_code}"
    return (
        Cause.EXIT,
        f"Backend stream closed. Process exited with status {exit_code} before it connected{_last(remains)}",
    )


def _cause_of(failure: Failure) -> Cause:
    try:
        return Cause(failure.cause)
    except ValueError:
        return Cause.INITIALIZE  # the handler failed, without a cause of its own


def _last(remains: Remains) -> str:
    """The last line that a process wrote usually says what was wrong."""
    line = next((line for line in reversed(remains.last_output) if line.strip()), "")
    return f": {line.strip()[:200]}" if line else ""
