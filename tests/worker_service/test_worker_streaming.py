"""Pieces of answers that leave while the handler runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from workshop import KeepingChannel, batch, load, request

from modelserver.wire.frames import Reply

STREAMER = """
from ts.handler_utils.utils import send_intermediate_predict_response as send

def handle(data, context):
    if data is None:
        return
    for n in range(2):
        send([f"{n}{row['body'].decode()} " for row in data], context.request_ids, "Intermediate", 200, context)
    return ["last"] * len(data)
"""


def test_pieces_then_the_returned_value(tmp_path: Path) -> None:
    channel = KeepingChannel()
    replies = load(tmp_path, STREAMER, channel).handle(batch(request(b"a", id="x"), request(b"b", id="y")))
    assert [chunk.batch for chunk in channel.chunks] == [7, 7]
    first, second = channel.chunks
    assert [(reply.index, reply.body) for reply in first.replies] == [(0, b"0a "), (1, b"0b ")]
    assert all(reply.headers == [("ts_stream_next", "true")] for reply in first.replies)
    assert second.replies == [Reply(0, b"1a "), Reply(1, b"1b ")]
    assert [(reply.body, reply.streamed) for reply in replies.replies] == [(b"last", True), (b"last", True)]


def test_the_first_piece_carries_status_and_headers(tmp_path: Path) -> None:
    source = STREAMER.replace(
        "    for n",
        "    context.set_response_status(202, 'Soon', 0)\n    context.set_response_header(0, 'X-A', '1')\n    for n",
    )
    channel = KeepingChannel()
    load(tmp_path, source, channel).handle(batch(request(b"a")))
    (piece,) = channel.chunks[0].replies
    assert (piece.status, piece.phrase) == (202, "Soon")
    assert piece.headers == [("X-A", "1"), ("ts_stream_next", "true")]


def test_a_part_of_the_batch_streams(tmp_path: Path) -> None:
    source = """
    from ts.handler_utils.utils import send_intermediate_predict_response
    def handle(data, context):
        if data is None:
            return
        send_intermediate_predict_response({1: "piece"}, {1: context.request_ids[1]}, "", 200, context)
        return ["whole", "end"]
    """
    channel = KeepingChannel()
    replies = load(tmp_path, source, channel).handle(batch(request(id="x"), request(id="y")))
    assert [reply.index for reply in channel.chunks[0].replies] == [1]
    assert [(reply.body, reply.streamed) for reply in replies.replies] == [(b"whole", False), (b"end", True)]


def test_the_next_batch_begins_afresh(tmp_path: Path) -> None:
    channel = KeepingChannel()
    service = load(tmp_path, STREAMER, channel)
    for number in (1, 2):
        service.handle(batch(request(b"a"), id=number))
    firsts = [chunk.replies[0] for chunk in channel.chunks if chunk.replies[0].headers]
    assert len(firsts) == 2
    assert [chunk.batch for chunk in channel.chunks] == [1, 1, 2, 2]


def test_pieces_never_reach_requests_of_another_batch(tmp_path: Path) -> None:
    source = """
    from ts.handler_utils.utils import send_intermediate_predict_response as send
    OLD = []
    def handle(data, context):
        if data is None:
            return
        OLD.append(dict(context.request_ids))
        send(["secret"], OLD[0], "", 200, context)
        return ["x"]
    """
    channel = KeepingChannel()
    service = load(tmp_path, source, channel)
    service.handle(batch(request(id="first"), id=1))
    replies = service.handle(batch(request(id="second"), id=2))
    assert [chunk.batch for chunk in channel.chunks] == [1]
    assert replies.replies[0].streamed is False


def test_other_ranks_send_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    channel = KeepingChannel()
    replies = load(tmp_path, STREAMER, channel).handle(batch(request(b"a")))
    assert channel.sent == []
    assert replies.replies[0].streamed is False


def test_the_old_name_works_and_warns(tmp_path: Path) -> None:
    source = STREAMER.replace("ts.handler_utils.utils", "ts.protocol.otf_message_handler")
    channel = KeepingChannel()
    text = (
        "send_intermediate_predict_response is deprecated in 1.0 and moved to "
        "ts.handler_utils.utils.send_intermediate_predict_response"
    )
    with pytest.warns(PendingDeprecationWarning, match=text):
        load(tmp_path, source, channel).handle(batch(request(b"a")))
    assert len(channel.chunks) == 2


def test_a_piece_that_cannot_be_sent_fails_the_batch(tmp_path: Path) -> None:
    source = STREAMER.replace("[f\"{n}{row['body'].decode()} \" for row in data]", "[object()]")
    channel = KeepingChannel()
    replies = load(tmp_path, source, channel).handle(batch(request(b"a")))
    assert channel.sent == []
    assert replies.code == 503


def test_a_failure_after_the_first_piece(tmp_path: Path) -> None:
    source = STREAMER.replace('return ["last"]', "raise ValueError(n)\n    return []")
    channel = KeepingChannel()
    replies = load(tmp_path, source, channel).handle(batch(request(b"a")))
    assert len(channel.chunks) == 2
    assert (replies.code, replies.message, replies.replies) == (503, "Prediction failed", [])
