"""What one request of a translated batch gives to the handler, and what its client gets for the results."""

from __future__ import annotations

import copy
import sys
from typing import Any, NamedTuple, Self

from modelserver.wire.frames import Request
from modelserver.worker.rows import Row

JSON_TYPE = [("content-type", "application/json")]
_AS_THEY_ARE = (str, bytes, bytearray)


class Written(NamedTuple):
    """An element to be encoded like any other, and the headers it has of itself."""

    element: Any
    headers: list[tuple[str, str]]


class Turn:
    """A request whose body is none of our business: one row, one result, labelled if it is JSON."""

    def __init__(self, index: int, request: Request, rows: list[Row], *, wrapped: bool = False) -> None:
        self.index = index  # in its batch
        self.request = request  # as the context shows it
        self.rows = rows
        self.coding: str | None = None  # in which the client wants a whole answer, as Content-Encoding names it
        self._wrapped = wrapped  # an envelope makes JSON of every result

    def write(self, results: list[Any]) -> Written:
        """The answer, from a result for each row."""
        (element,) = results
        return Written(element, JSON_TYPE if self._wrapped or becomes_json(element) else [])

    def write_piece(self, piece: Any) -> Any:
        """A piece of the answer, sent while the handler still runs."""
        return piece

    def write_last(self, results: list[Any]) -> Written:
        """What comes behind the pieces."""
        return Written(results[0], [])

    def write_step(self, results: list[Any]) -> Written:
        """A piece made of a result for each row, of an answer that takes several calls of the handler."""
        return Written(self.write_piece(results[0]), [])

    def write_end(self, results: list[Any]) -> Written:
        """The piece after which the answer is over: most often there is nothing left to say."""
        if len(results) == 1 and isinstance(results[0], _AS_THEY_ARE) and not results[0]:
            return Written("", [])
        return self.write_step(results)

    def continued(self, index: int) -> Self:
        """The same request in the next step: rows and request are empty."""
        turn = copy.copy(self)
        turn.index = index
        turn.rows = [{} for _ in self.rows]
        turn.request = Request(self.request.id, [], self.request.headers, self.request.extra)
        return turn


def becomes_json(element: Any) -> bool:
    """Whether an element of a handler's result is sent as JSON."""
    torch = sys.modules.get("torch")  # not imported: then there are no tensors
    return not isinstance(element, _AS_THEY_ARE) and (torch is None or not isinstance(element, torch.Tensor))
