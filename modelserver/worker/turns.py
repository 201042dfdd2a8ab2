"""What one request of a translated batch gives to the handler, and what its client gets for the results."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

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


def becomes_json(element: Any) -> bool:
    """Whether an element of a handler's result is sent as JSON."""
    torch = sys.modules.get("torch")  # not imported: then there are no tensors
    return not isinstance(element, _AS_THEY_ARE) and (torch is None or not isinstance(element, torch.Tensor))
