"""`context.cl_socket`: pieces of answers that leave while the handler still runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelserver.wire.frames import Batch, Chunk, Reply
from ts.protocol.encoding import STREAM_HEADER, encode_body, encode_head

if TYPE_CHECKING:
    from ts.channel import Channel
    from ts.context import Context


class Stream:
    """Sends pieces for the requests of one batch, and remembers which answers have begun."""

    __slots__ = ("_batch", "_channel", "_limit", "begun")

    def __init__(self, batch: Batch, channel: Channel, limit: int) -> None:
        self._batch = batch
        self._channel = channel
        self._limit = limit  # bytes of one piece
        self.begun: set[int] = set()  # positions of requests whose answer is no longer whole

    def send(self, pieces: Any, ids: Mapping[int, str], code: int, context: Context) -> None:
        """Send `pieces[i]` to the request `ids[i]`; requests of other batches are passed over.

        The first piece of an answer carries the status and headers set so far. Raises what encoding raises.
        """
        positions = {request.id: position for position, request in enumerate(self._batch.requests)}
        replies = []
        for index, request_id in ids.items():
            position = positions.get(request_id)
            if position is not None:
                body = encode_body(pieces[index], self._limit)
                begun = position in self.begun
                replies.append(Reply(position, body) if begun else _first(position, request_id, body, code, context))
        if replies:
            self._channel.send(Chunk(self._batch.id, replies))
            self.begun.update(reply.index for reply in replies)


def _first(position: int, request_id: str, body: bytes, code: int, context: Context) -> Reply:
    """The piece that opens an answer; `context` may be narrowed to fewer requests than the batch has."""
    place = list((context.request_ids or {}).values()).index(request_id)
    head = encode_head((context.request_processor or ())[place])
    status = code if head.status == 200 else head.status
    return Reply(position, body, status, head.phrase, [*head.headers, (STREAM_HEADER, "true")])
