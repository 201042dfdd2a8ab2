"""Lines of a worker's output."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from itertools import pairwise

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from modelserver.pool.output import LineSplitter, Output

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def split(*pieces: bytes, limit: int = 100) -> list[str]:
    splitter = LineSplitter(limit)
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    return [*lines, *splitter.feed(b"", final=True)]


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a\n\n b"], ["a", "", " b"]),
        ([b"10%\r20%\r\ndone\r", b"\nnext"], ["10%", "20%", "done", "next"]),
        ([b"a\r", b"", b"\n\nb\n"], ["a", "", "b"]),
        (["x\x85y\u2028z\u2029".encode()], ["x", "y", "z"]),
        ([b"a\x0b\x0c\x1cb\n"], ["a\x0b\x0c\x1cb"]),
        ([b"\xe4\xb8", b"\x96\n"], ["世"]),
        ([b"\xff\xfe!\n"], ["\ufffd\ufffd!"]),
        ([b"cut \xe4\xb8"], ["cut \ufffd"]),
        ([], []),
    ],
)
def test_line_ends_and_encoding(pieces: list[bytes], lines: list[str]) -> None:
    assert split(*pieces) == lines


def test_long_lines_are_split_finished_or_not() -> None:
    assert split(b"abcdefgh\nij", limit=3) == ["abc", "def", "gh", "ij"]
    splitter = LineSplitter(3)
    assert list(splitter.feed(b"abcdefgh")) == ["abc", "def"]
    assert list(splitter.feed(b"i\n")) == ["ghi"]


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_cutting_the_stream_changes_nothing(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(data)]
    assert split(*(data[a:b] for a, b in pairwise(places))) == split(data)


@pytest.mark.parametrize("factory", LOOPS)
def test_a_flood_leaves_the_loop_its_turns(factory: LoopFactory) -> None:
    """The loop gets a turn after every few lines however much waits in the pipe, and the end is told once."""

    async def main() -> None:
        reader, writer = os.pipe()
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        lines: list[str] = []
        turns: list[int] = []
        output = Output(reader, lines.append, lambda: over.set_result(None))
        assert os.write(writer, b"0123456\n" * 8192) == 1 << 16  # the pipe is full
        os.close(writer)
        output.start(loop)
        while not over.done():
            turns.append(len(lines))
            await asyncio.sleep(0)
        assert lines == ["0123456"] * 8192
        assert max(b - a for a, b in pairwise(turns)) <= 1024
        assert not output.open
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.close(reader)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("factory", LOOPS)
def test_closing_takes_what_is_there_and_does_not_wait_for_writers(factory: LoopFactory) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        lines: list[str] = []
        output = Output(reader, lines.append, lambda: pytest.fail("not at its end"))
        output.start(asyncio.get_running_loop())
        os.write(writer, b"one\ntwo")
        output.close()
        output.close()
        assert lines == ["one", "two"]
        os.close(writer)
        await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
