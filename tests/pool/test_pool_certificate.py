"""What a dead worker's traces are taken for."""

from __future__ import annotations

import pytest

from modelserver.errors import Cause, Certificate
from modelserver.pool.certificate import Remains, certify
from modelserver.wire.frames import Failure

KILLED = 9  # raw wait statuses
SEGFAULT = 11 | 0x80  # with a core dump


def exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("remains", "cause", "detail", "http"),
    [
        (Remains(KILLED), Cause.OUT_OF_MEMORY, "killed by SIGKILL, as the kernel does when memory runs out", 507),
        (Remains(exited(137), connected=True), Cause.OUT_OF_MEMORY, None, 507),
        (Remains(KILLED, killed=True), Cause.STOPPED, "stopped on request", 500),
        (Remains(SEGFAULT), Cause.SIGNAL, "killed by SIGSEGV", 500),
        (Remains(SEGFAULT, orphaned=True), Cause.SIGNAL, "killed by SIGSEGV", 500),
        (Remains(KILLED, orphaned=True), Cause.SIGNAL, "killed because the nursery, its parent process, died", 500),
        (Remains(None, orphaned=True), Cause.SIGNAL, "killed because the nursery, its parent process, died", 500),
        (Remains(KILLED, orphaned=True, killed=True), Cause.STOPPED, "stopped on request", 500),
        (Remains(exited(2), orphaned=True, connected=True), Cause.EXIT, "process exited with status 2", 500),
        (Remains(SEGFAULT, killed=True), Cause.SIGNAL, "killed by SIGSEGV", 500),
        (Remains(40), Cause.SIGNAL, "killed by SIG40", 500),
        (Remains(exited(3), connected=True), Cause.EXIT, "process exited with status 3", 500),
        (Remains(exited(0), connected=True), Cause.EXIT, "process exited with status 0", 500),
        (
            Remains(exited(1), last_output=["Traceback", "ImportError: no", " "]),
            Cause.EXIT,
            "Backend stream closed. Process exited with status 1 before it connected: ImportError: no",
            500,
        ),
        (Remains(None), Cause.EXIT, "process ended, its exit status is unknown", 500),
        (
            Remains(exited(1), failure=Failure("CUDA out of memory", "OutOfMemoryError: x", "trace")),
            Cause.CUDA_OUT_OF_MEMORY,
            "OutOfMemoryError: x",
            507,
        ),
        (Remains(exited(1), failure=Failure("what?", "ValueError: x")), Cause.INITIALIZE, "ValueError: x", 500),
    ],
)
def test_causes(remains: Remains, cause: Cause, detail: str | None, http: int) -> None:
    certificate = certify(remains)
    assert certificate.cause is cause
    assert certificate.detail == (detail or certificate.detail)
    assert certificate.cause.http_status == http


def test_traces_are_kept() -> None:
    failure = Failure("exception in initialize", "ValueError: x", "Traceback: ...")
    certificate = certify(Remains(exited(1), 1024, True, failure, last_output=["a", "b"]))
    assert certificate == Certificate(
        Cause.INITIALIZE, "ValueError: x", "Traceback: ...", ("a", "b"), exit_code=1, signal=None, max_rss=1024
    )
    assert certify(Remains(SEGFAULT)).signal == "SIGSEGV"
    assert certify(Remains(SEGFAULT)).exit_code is None


def test_a_reason_given_stands_and_gets_the_traces() -> None:
    reason = Certificate(Cause.RESPONSE_TIMEOUT, "no answer in 2 s")
    certificate = certify(Remains(KILLED, 5, True, reason=reason, killed=True, last_output=["last"]))
    assert certificate == Certificate(Cause.RESPONSE_TIMEOUT, "no answer in 2 s", last_output=("last",), max_rss=5)
