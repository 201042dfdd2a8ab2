"""What a worker prints: bytes of its pipes, cut into lines."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
from collections.abc import Callable, Iterator

LINE_LIMIT = 1 << 16  # characters; longer lines are split
_READ = 1 << 13  # bytes a turn of the event loop: a worker that floods its pipe gets its share of the loop, no more
_PIPE = 1 << 16  # bytes a pipe holds

_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


class LineSplitter:
    """Cuts a stream of UTF-8 into lines; undecodable bytes are replaced, memory is bounded by the line limit."""

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._after_return = False

    def feed(self, data: bytes, final: bool = False) -> Iterator[str]:
        """Yields the lines that `data` completes, without their ends; with `final` also the one left unfinished."""
        text = self._decoder.decode(data, final)
        if self._after_return and text:
            self._after_return = False
            text = text.removeprefix("\n")  # the carriage return before it has ended the line already
        if text:
            self._after_return = text.endswith("\r")
        *lines, self._rest = _LINE_END.split(self._rest + text)
        for line in lines:
            yield from self._pieces(line)
        *pieces, self._rest = self._pieces(self._rest)
        yield from pieces
        if final and self._rest:
            yield self._rest
            self._rest = ""

    def _pieces(self, line: str) -> list[str]:
        if len(line) <= self._limit:
            return [line]
        return [line[start : start + self._limit] for start in range(0, len(line), self._limit)]


class Output:
    """Reads one pipe without blocking and hands on its lines; owns the descriptor."""

    def __init__(self, descriptor: int, printed: Callable[[str], None], ended: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._printed = printed
        self._ended = ended
        self._splitter = LineSplitter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.open = True
        os.set_blocking(descriptor, False)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to read. `ended` is called once all writers have closed the pipe."""
        self._loop = loop
        loop.add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Take what the pipe still holds, and stop; `ended` is not called."""
        if not self.open:
            return
        for _ in range(_PIPE // _READ):
            data = self._take()
            if not data:
                break
            self._hand_on(data)
        self._finish()

    def _read(self) -> None:
        data = self._take()
        if data:
            self._hand_on(data)
        elif data is not None:
            self._finish()
            self._ended()

    def _take(self) -> bytes | None:
        """What has arrived; empty at the end, None if nothing has."""
        try:
            return os.read(self._descriptor, _READ)
        except BlockingIOError:
            return None

    def _hand_on(self, data: bytes, final: bool = False) -> None:
        for line in self._splitter.feed(data, final):
            self._printed(line)

    def _finish(self) -> None:
        self.open = False
        if self._loop is not None:
            self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._hand_on(b"", final=True)
