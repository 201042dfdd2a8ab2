"""Frames survive the way through a byte stream however it is cut, and garbage is told from frames."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelserver.wire import frames
from modelserver.wire.frames import (
    Ask,
    Batch,
    Cancel,
    Failure,
    Fatal,
    FrameTooLarge,
    FromWorkerReader,
    Hello,
    Load,
    Loaded,
    Metric,
    OpenInference,
    Part,
    Replies,
    Reply,
    Request,
    Room,
    Share,
    Shared,
    SharedBatch,
    SharedReplies,
    Stop,
    TensorSpec,
    ToWorkerReader,
    encode,
)
from modelserver.wire.places import Place

BATCH = Batch(
    7, frames.PREDICT, [Request("r", [Part("body", "", b"\x00\xff")], [(b"A", b"\xe9")], {"explain": "False"})]
)
TO_WORKER: list[frames.ToWorker] = [
    Load("m", "/m", "h.py", 4, None, "", True, 100, ""),
    Load(
        "m",
        "/m",
        "h.py",
        4,
        0,
        "json",
        True,
        100,
        "",
        "1.0",
        200,
        OpenInference(True, (TensorSpec("x", "INT8", (-1,)),)),
    ),
    BATCH,
    Cancel(7, ["r"]),
    Stop(),
    Share(4711, 12, 1, 2, 1 << 20),
    Room(1 << 20),
    SharedBatch(BATCH, [Place(0, 0, 0, 1 << 16)]),
]
FROM_WORKER: list[frames.FromWorker] = [
    Shared("OSError: no"),
    Ask(),
    SharedReplies(Replies(7, 200, "ok", [Reply(0, b"")]), [Place(0, 0, 64, 1 << 16)]),
    Hello(9000, 1, 0, 12, "token", "3.11.7"),
    Fatal(Failure("process exited", "SystemExit: 5")),
    Loaded(500, "no", Failure("", "ValueError: x", "trace")),
    Replies(7, 200, "ok", [Reply(0, b"\x00" * 70000)], [Metric("a", "ms", 1.5, [("L", "m")], "GAUGE", "")]),
    Replies(7, 200, "ok", [Reply(0, b"bad", 400)], failed=[0]),
]


@settings(deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1))
def test_frames_arrive_in_order_however_the_stream_is_cut(sizes: list[int]) -> None:
    stream = b"".join(map(encode, TO_WORKER))
    reader = ToWorkerReader(1 << 20)
    received: list[frames.ToWorker] = []
    while stream:
        for size in sizes:
            received += reader.feed(stream[:size])
            stream = stream[size:]
    assert received == TO_WORKER
    assert not reader.partial


def test_frames_of_a_worker_in_one_piece_and_byte_by_byte() -> None:
    stream = b"".join(map(encode, FROM_WORKER))
    assert list(FromWorkerReader(1 << 20).feed(stream)) == FROM_WORKER
    reader = FromWorkerReader(1 << 20)
    assert [frame for index in range(len(stream)) for frame in reader.feed(stream[index : index + 1])] == FROM_WORKER


def test_the_beginning_of_a_frame_is_held_and_told() -> None:
    reader = ToWorkerReader(1 << 20)
    whole = encode(BATCH)
    assert list(reader.feed(whole + whole[:5])) == [BATCH]
    assert reader.partial
    assert list(reader.feed(whole[5:])) == [BATCH]
    assert not reader.partial


@pytest.mark.parametrize("held", [False, True])
def test_frames_before_garbage_are_delivered(held: bool) -> None:
    reader = ToWorkerReader(1 << 20)
    stream = encode(BATCH) + (3).to_bytes(4, "little") + b"\xc1\xc1\xc1"
    received = list(reader.feed(stream[:2])) if held else []
    with pytest.raises(msgspec.MsgspecError):
        for frame in reader.feed(stream[2:] if held else stream):
            received.append(frame)
    assert received == [BATCH]


def test_a_length_above_the_limit_is_refused_before_its_bytes_are_held() -> None:
    reader = FromWorkerReader(10)
    with pytest.raises(FrameTooLarge, match="frame of 11 bytes exceeds the limit of 10"):
        list(reader.feed((11).to_bytes(4, "little")))


def test_the_limit_counts_the_payload_and_may_change_between_frames() -> None:
    stop = encode(Stop())
    reader = ToWorkerReader(len(stop) - 4)
    feed = reader.feed(stop + encode(BATCH))
    assert next(feed) == Stop()
    reader.limit = 1 << 20
    assert next(feed) == BATCH


def test_a_frame_of_the_other_direction_is_garbage() -> None:
    with pytest.raises(msgspec.ValidationError):
        list(FromWorkerReader(1 << 20).feed(encode(Stop())))


@pytest.mark.parametrize(
    ("frame", "arrives"),
    [
        (
            Replies(1, 503, "a\udc80", [Reply(0, b"\xff")], failure=Failure("", "\ud800b")),
            Replies(1, 503, "a\\udc80", [Reply(0, b"\xff")], failure=Failure("", "\\ud800b")),
        ),
        (
            Replies(1, 200, "", [], [Metric("n", "u", 1.0, [("k", "\udc80")], "COUNTER", "")]),
            Replies(1, 200, "", [], [Metric("n", "u", 1.0, [("k", "\\udc80")], "COUNTER", "")]),
        ),
    ],
)
def test_text_that_is_no_unicode_arrives_escaped(frame: frames.FromWorker, arrives: frames.FromWorker) -> None:
    assert list(FromWorkerReader(1 << 20).feed(encode(frame))) == [arrives]


def test_a_request_with_text_that_is_no_unicode_arrives_escaped() -> None:
    sent = Batch(1, 0, [Request("r", [Part("\udc80", "", b"\xff")], [], {"url_path": "\udc81"})])
    received = Batch(1, 0, [Request("r", [Part("\\udc80", "", b"\xff")], [], {"url_path": "\\udc81"})])
    assert list(ToWorkerReader(1 << 20).feed(encode(sent))) == [received]
