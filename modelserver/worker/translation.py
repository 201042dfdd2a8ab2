"""Batches that came by KServe's protocols: from what clients send to what handlers take, and back.

The handler sees only the requests that can be read; each of the others fails alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from modelserver.oip.failures import InvalidOutput, InvalidRequest
from modelserver.wire.frames import INFER, PROTOBUF, TORCHSERVE_PROTOBUF, Batch, Load, Part, Reply, Request
from modelserver.worker.batch_context import BatchContext
from modelserver.worker.deflation import compress, wanted_coding
from modelserver.worker.inflation import NotInflatable, inflate
from modelserver.worker.replies import check_result, encode_replies
from modelserver.worker.rows import decoded_row, raw_row
from modelserver.worker.turns import Turn, Written
from ts.channel import Channel
from ts.entry_point import Handle
from ts.protocol.stream import Stream

if TYPE_CHECKING:
    from modelserver.worker.tensor_turns import TensorTurns
    from ts.context import Context

logger = logging.getLogger(__name__)

_PROTOBUF: Final = (PROTOBUF, TORCHSERVE_PROTOBUF)
_TEXT_ENVELOPES: Final = ("", "body")  # under these, results stay what they are
_LENGTH: Final = b"inference-header-content-length"
_ENCODING: Final = b"content-encoding"
_ACCEPTED: Final = b"accept-encoding"
_NOTED: Final = frozenset({_LENGTH, _ENCODING, _ACCEPTED})
_NOTED_SIZES: Final = frozenset(map(len, _NOTED))
_ASKS_FOR_BYTES: Final = b'"binary_data'


class Translation:
    """One batch on its way through the handler."""

    def __init__(self, turns: list[Turn], failed: list[Reply], limit: int) -> None:
        self._turns = turns
        self._limit = limit  # bytes of one body
        self.failed = failed
        self.requests = [turn.request for turn in turns]
        self.rows = [row for turn in turns for row in turn.rows]

    def stream(self, batch: Batch, channel: Channel) -> Stream:
        """The way for pieces of answers."""
        return _TurnStream(batch, channel, self._limit, self._turns)

    def replies(self, result: Any, context: BatchContext, begun: Collection[int]) -> list[Reply]:
        """One for every request of the batch, in order; what fails only now is added to `failed`.

        Raises what `encode_replies` raises.
        """
        check_result(result, len(self.rows), context.model_name)
        written = self._write(result, begun)
        answers = encode_replies([answer.element for answer in written], context, (), self._limit)
        for turn, answer, reply in zip(self._turns, written, answers, strict=True):
            reply.index = turn.index
            reply.streamed = turn.index in begun
            reply.headers = _with_defaults(reply.headers, answer.headers)
            if turn.coding is not None and not reply.streamed:
                compress(reply, turn.coding)
        if not self.failed:
            return answers
        failed = {reply.index for reply in self.failed}
        served = [reply for reply in answers if reply.index not in failed]
        return sorted([*self.failed, *served], key=lambda reply: reply.index)

    def _write(self, result: list[Any], begun: Collection[int]) -> list[Written]:
        written, start = [], 0
        for turn in self._turns:
            end = start + len(turn.rows)
            try:
                written.append(self._way(turn, begun)(result[start:end]))
            except InvalidOutput as error:
                logger.error("Unable to answer request %s in Open Inference: %s", turn.request.id, error)
                self.failed.append(_failed(turn.index, 500, error))
                written.append(Written(b"", []))
            start = end
        return written

    def _way(self, turn: Turn, begun: Collection[int]) -> Callable[[list[Any]], Written]:
        """How the results of a turn are written."""
        return turn.write_last if turn.index in begun else turn.write


class _TurnStream(Stream):
    """Sends pieces in the forms of the clients."""

    __slots__ = ("_turns",)

    def __init__(self, batch: Batch, channel: Channel, limit: int, turns: list[Turn]) -> None:
        super().__init__(batch, channel, limit)
        self._turns = turns

    def send(self, pieces: Any, ids: Mapping[int, str], code: int, context: Context) -> None:
        """As in the base class. Raises `InvalidOutput` too."""
        turns = {turn.request.id: turn for turn in self._turns}
        known = {index: request_id for index, request_id in ids.items() if request_id in turns}
        written = {index: turns[request_id].write_piece(pieces[index]) for index, request_id in known.items()}
        super().send(written, known, code, context)


class Translator:
    """Reads the batches of one model."""

    def __init__(self, frame: Load, handle: Handle, bare: Handle, *, decode: bool) -> None:
        """`bare` is the handler without its envelope, which knows nothing of rows made of tensors."""
        self._frame = frame
        self._declared = frame.open_inference
        self._decode = decode
        self._row = decoded_row if decode else raw_row
        self._wrapped = frame.envelope not in _TEXT_ENVELOPES
        self._handle = handle
        self._bare = bare

    def handle_of(self, batch: Batch) -> Handle:
        """What answers the rows of a batch."""
        return self._bare if batch.kind >= INFER and self._declared.rows else self._handle

    def read(self, batch: Batch) -> Translation:
        """Never fails as a whole for what a client has sent."""
        turns: list[Turn] = []
        failed: list[Reply] = []
        for index, request in enumerate(batch.requests):
            try:
                turns.append(self.new_turn(index, request, batch.kind))
            except Exception as error:
                failed.append(_failed(index, *_judge(error)))
        return self.translation(turns, failed, self._frame.max_response_size)

    def new_turn(self, index: int, request: Request, kind: int) -> Turn:
        """Read one request. Raises whatever says that it cannot be read."""
        return self._infer_turn(index, request) if kind >= INFER else self._turn(index, request)

    def translation(self, turns: list[Turn], failed: list[Reply], limit: int) -> Translation:
        """The batch of these turns."""
        return Translation(turns, failed, limit)

    def _turn(self, index: int, request: Request) -> Turn:
        return Turn(index, request, [self._row(request)], wrapped=self._wrapped)

    def _infer_turn(self, index: int, request: Request) -> Turn:
        if len(request.parts) != 1 or request.parts[0].name != "body":
            return self._turn(index, request)  # of a form
        part = request.parts[0]
        if part.mime in _PROTOBUF:
            return self._tensors.of_message(index, request, part)
        said = _headers(request)
        if encoding := said.get(_ENCODING):
            limit = self._frame.max_request_size
            part = Part(part.name, part.mime, inflate(part.value, encoding.decode("latin-1"), limit))
            request = Request(request.id, [part], _plain(request), request.extra)
        turn = self._json_turn(index, request, part, said.get(_LENGTH))
        if accepted := said.get(_ACCEPTED):
            turn.coding = wanted_coding(accepted)
        return turn

    def _json_turn(self, index: int, request: Request, part: Part, length: bytes | None) -> Turn:
        if length is not None or self._declared.rows or self._declared.inputs:
            text = None if length is None else length.decode("latin-1")
            return self._tensors.of_json(index, request, part.value, text)
        turn = self._turn(index, request)  # the body is the handler's, or an envelope's
        return self._tensors.selecting(turn) if _ASKS_FOR_BYTES in part.value else turn

    @cached_property
    def _tensors(self) -> TensorTurns:
        """Needs numpy, which a model's own environment may lack: raises ModuleNotFoundError."""
        from modelserver.worker.tensor_turns import Model, TensorTurns

        frame = self._frame
        return TensorTurns(Model(frame.model_name, frame.model_version, self._declared, self._decode, self._wrapped))


def _judge(error: Exception) -> tuple[int, object]:
    """Status and text for a request that cannot be read."""
    if isinstance(error, InvalidRequest):
        return 400, error
    if isinstance(error, NotInflatable):
        return error.status, error
    if isinstance(error, RecursionError):
        return 400, "request is nested too deeply"
    if isinstance(error, ModuleNotFoundError):
        return 500, f"The model's Python environment cannot read tensors of Open Inference: {error}"
    logger.error("Unable to read a request in Open Inference", exc_info=error)
    return 500, f"request cannot be read: {type(error).__name__}: {error}"


def _failed(index: int, status: int, reason: object) -> Reply:
    return Reply(index, str(reason).encode("utf-8", "replace"), status)


def _headers(request: Request) -> dict[bytes, bytes]:
    """Those that say something of the bodies, by their names in lower case; of several the last one counts."""
    said = {}
    for name, value in request.headers:
        if len(name) in _NOTED_SIZES and (lowered := name.lower()) in _NOTED:
            said[lowered] = value
    return said


def _plain(request: Request) -> list[tuple[bytes, bytes]]:
    """The headers of a body that is not encoded any more."""
    return [header for header in request.headers if header[0].lower() != _ENCODING]


def _with_defaults(headers: list[tuple[str, str]], defaults: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The handler's headers, and those it has not set."""
    if not headers or not defaults:
        return headers or defaults
    given = {name.lower() for name, _ in headers}
    return [*headers, *(header for header in defaults if header[0] not in given)]
