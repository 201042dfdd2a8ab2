"""`BaseEnvelope`, and what the envelopes share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ts.utils.util import PredictionException


class BaseEnvelope:
    """Wraps a handler's entry point; a subclass says what of a request the handler sees and what becomes of results."""

    context: Any = None

    def __init__(self, handle_fn: Callable[[Any, Any], Any]) -> None:
        self._handle_fn = handle_fn

    def handle(self, data: Any, context: Any) -> Any:
        """Answer a batch; a describe call goes to the handler as it is."""
        self.context = context
        if describes(context):
            return self._handle_fn(data, context)
        return self._answer(data)

    def parse_input(self, data: Any) -> Any:
        """What the handler gets in place of the rows."""
        return data

    def format_output(self, data: Any) -> Any:
        """What is answered in place of the handler's results."""
        return data

    def _answer(self, data: Any) -> Any:
        if data:
            data = self.parse_input(data)
        results = self._handle_fn(data, self.context)
        return self.format_output(results) if results else results

    def _answer_each(self, rows: Any) -> Any:
        """One call of the handler for each request, which is then the only one that the context knows."""
        if len(rows) == 1:
            return self._answer(rows)
        answers: list[Any] = []
        for index, row in enumerate(rows):
            with _only(self.context, index):
                answers += self._answer([row])
        return answers


def value_of(row: Any) -> Any:
    """What a request sent: its field `data`, else its body."""
    return row.get("data") or row.get("body")


def object_of(row: Any) -> dict[str, Any]:
    """The JSON object that a request sent, whatever its content type. Raises `PredictionException` (400)."""
    value = value_of(row)
    if isinstance(value, bytes | bytearray | str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise PredictionException(f"request is not valid JSON: {error}", 400) from error
    if not isinstance(value, dict):
        raise PredictionException("request is not a JSON object", 400)
    return value


def list_of(request: dict[str, Any], member: str) -> list[Any]:
    """The list that a request has under this name. Raises `PredictionException` (400)."""
    value = request.get(member)
    if not isinstance(value, list):
        raise PredictionException(f"request has no list '{member}'", 400)
    return value


def explains(context: Any) -> bool:
    """Whether the batch asks for explanations."""
    return context is not None and bool(context.get_request_header(0, "explain") == "True")


def describes(context: Any) -> bool:
    """Whether this is a describe call."""
    return context is not None and bool(context.get_request_header(0, "describe") == "True")


@contextmanager
def _only(context: Any, index: int) -> Iterator[None]:
    """For a while, the context is that of one request of the batch."""
    ids, processors = context.request_ids, context.request_processor
    _enter(context, {0: ids[index]}, [processors[index]])
    try:
        yield
    finally:
        _enter(context, ids, processors)


def _enter(context: Any, ids: dict[int, str], processors: list[Any]) -> None:
    context.request_ids, context.request_processor = ids, processors
    if context.metrics is not None:
        context.metrics.set_request_ids(ids)
