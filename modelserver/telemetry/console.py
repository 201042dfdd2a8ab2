"""Standard output and standard error, be they files, terminals, or pipes whose readers stall or leave."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from typing import BinaryIO, Final

STANDARD_OUTPUT: Final = 1
STALL: Final = 1.0  # seconds a reader may leave the pipe full before lines are dropped


class Console:
    """The writing end of one of them. A failure switches it off, a stalled reader loses lines; both are told."""

    def __init__(
        self,
        stream: BinaryIO | None,
        complain: Callable[[str], None],
        stall: float = STALL,
        descriptor: int = STANDARD_OUTPUT,
    ) -> None:
        """Without a stream, the descriptor of this process."""
        self._complain = complain
        self._name = "Standard output" if descriptor == STANDARD_OUTPUT else "Standard error"
        self._stream = stream if stream is not None else _open(descriptor)
        self._stall = stall
        self._stalled = False
        self._owed = b""  # the rest of a line that a stalled reader has the beginning of

    def write(self, text: bytes) -> None:
        """Write all of it, or what the reader takes in time."""
        if self._stream is None:
            return
        try:
            self._write_all(self._stream, self._owed + text)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed by its owner
            self._stream = None
            self._complain(f"{self._name} is gone ({error}): lines go to the log files only.")

    def _write_all(self, stream: BinaryIO, text: bytes) -> None:
        position = 0
        with memoryview(text) as view:
            while position < len(text):
                written: int | None = stream.write(view[position:])  # None: the pipe is full
                position += written or 0
                if not written and not self._wait(stream):
                    break
        if position == len(text) or text[:position].endswith(b"\n"):
            self._owed = b""
        elif position:
            self._owed = text[position : text.index(b"\n", position) + 1]
        stream.flush()

    def _wait(self, stream: BinaryIO) -> bool:
        """Whether the reader made room. A stalled one is granted no further time until it reads again."""
        poll = select.poll()
        poll.register(stream, select.POLLOUT)
        ready = bool(poll.poll(0 if self._stalled else self._stall * 1000))
        if not ready and not self._stalled:
            self._complain(f"Nobody reads {self._name.lower()}: its lines are dropped until somebody does.")
        self._stalled = not ready
        return ready


def _open(descriptor: int) -> BinaryIO | None:
    """The descriptor without a buffer; a pipe or terminal is opened anew, so that only we see it as non-blocking."""
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            try:
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                return os.fdopen(os.open(f"/proc/self/fd/{descriptor}", flags), "wb", buffering=0)
            except OSError:
                pass  # not ours to open: it is written to as it is
        return os.fdopen(descriptor, "wb", buffering=0, closefd=False)
    except OSError:
        return None
