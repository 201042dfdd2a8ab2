"""What went wrong in a handler, as codes, messages and causes that the frontend understands."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

import ts.entry_point
import ts.model_import
from modelserver.wire.frames import Failure
from ts.utils.util import PredictionException

# Values of the frontend's `errors.Cause`, which a worker cannot import.
BAD_ARCHIVE: Final = "bad archive"
HANDLER_MISSING: Final = "handler not found"
HANDLER_IMPORT: Final = "handler cannot be imported"
HANDLER_CONTRACT: Final = "handler contract broken"
INITIALIZE: Final = "exception in initialize"
OUT_OF_MEMORY: Final = "out of memory"
CUDA_OUT_OF_MEMORY: Final = "CUDA out of memory"
REPLY_TOO_LARGE: Final = "reply too large"
EXIT: Final = "process exited"
IN_HANDLER: Final = ""  # the handler failed on a batch; the worker lives on

# Files whose frames stand above the user's code and say nothing about it.
_OURS = (
    str(Path(__file__).parent),
    str(ts.entry_point.__file__),
    str(ts.model_import.__file__),
    "<frozen importlib",
    str(importlib.__file__),
)

_NO_SIZE: Final = 1 << 31

# Characters; exceptions may quote whole request bodies.
_DETAIL_LIMIT, _TRACEBACK_LIMIT = 1000, 1 << 16


class LoadFailed(Exception):
    """A model that cannot be loaded; prints as `<code> - <message>`."""

    def __init__(self, code: int, message: str, failure: Failure) -> None:
        super().__init__(f"{code} - {message}")
        self.code = code
        self.message = message
        self.failure = failure


class Refusal(NamedTuple):
    """The answer to every request of a failed batch, and the line for the model log."""

    code: int
    message: str
    log: str
    cause: str = IN_HANDLER


class ResultRejected(Exception):
    """A result of the handler that cannot become replies; the text is the line for the model log."""

    def __init__(self, code: int, message: str, log: str, failure: Failure) -> None:
        super().__init__(log)
        self.code = code
        self.message = message
        self.failure = failure


def text_of(value: object) -> str:
    """`str(value)`, also for objects of the handler that cannot be printed."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__} without text>"


def failure_of(cause: str, error: BaseException) -> Failure:
    """The exception in one line and in full, the traceback beginning at the first frame of user code."""
    return Failure(cause, _headline(error), traceback_of(error))


def _headline(error: BaseException) -> str:
    """Kind and first line of the text, and the next one where the first only announces it."""
    first, _, rest = text_of(error).strip().partition("\n")
    if first.endswith(":"):
        first = f"{first} {rest.strip()}".partition("\n")[0].rstrip()
    return f"{type(error).__name__}: {first[:_DETAIL_LIMIT]}" if first else type(error).__name__


def traceback_of(error: BaseException) -> str:
    """The end of the traceback with chained exceptions, without frames of ours and of importlib at its head."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = _without_head(link.__traceback__)
        link = link.__cause__ or link.__context__
    return "".join(traceback.format_exception(error))[-_TRACEBACK_LIMIT:]


def judge(error: BaseException) -> Refusal:
    """What a batch is answered whose handler raised this."""
    if isinstance(error, MemoryError):
        return Refusal(507, "Out of resources", "System out of memory", OUT_OF_MEMORY)
    if isinstance(error, PredictionException):
        code = _status(getattr(error, "error_code", 500))
        if code is not None:
            return Refusal(code, text_of(getattr(error, "message", "")), "Prediction error")
    elif "CUDA" in text_of(error):
        return Refusal(507, "Out of resources", "CUDA out of memory", CUDA_OUT_OF_MEMORY)
    return Refusal(503, "Prediction failed", "Invoking custom service failed.")


def _status(code: object) -> int | None:
    """A number, be it no HTTP status, which the frontend makes one of; 500 for one of no size, None for no number."""
    try:
        number = int(code)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < _NO_SIZE else 500


def _without_head(trace: TracebackType | None) -> TracebackType | None:
    """Drops leading frames of ours."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace
