"""Envelope `kserve`: version 1 of KServe's protocol."""

from __future__ import annotations

from typing import Any

from ts.torch_handler.request_envelope.base import BaseEnvelope, describes, explains, list_of, object_of


class KServeEnvelope(BaseEnvelope):
    """`{"instances": [...]}` in, `{"predictions": [...]}` or `{"explanations": [...]}` out.

    The instances of all requests of a batch go to the handler together; explanations are asked for one request at a
    time, because each may have a target of its own.
    """

    _lengths: tuple[int, ...] = ()  # instances of each request

    def handle(self, data: Any, context: Any) -> Any:
        """Answer a batch; raises `PredictionException` (400) for a request without instances."""
        self.context = context
        if describes(context):
            return self._handle_fn(data, context)
        return self._answer_each(data) if explains(context) else self._answer(data)

    def parse_input(self, data: Any) -> list[Any]:
        """The instances of all requests."""
        requests = [list_of(object_of(row), "instances") for row in data]
        self._lengths = tuple(map(len, requests))
        return [instance for request in requests for instance in request]

    def format_output(self, data: Any) -> list[dict[str, Any]]:
        """The results, cut back to requests. Raises `ValueError` where they do not fit."""
        member = "explanations" if explains(self.context) else "predictions"
        if len(self._lengths) == 1:  # a handler may answer as a whole what it was given as a whole
            return [{member: data}]
        if len(data) != sum(self._lengths):
            raise ValueError(f"handler returned {len(data)} results for {sum(self._lengths)} instances")
        results = iter(data)
        return [{member: [next(results) for _ in range(length)]} for length in self._lengths]

    def _answer(self, data: Any) -> Any:
        instances = self.parse_input(data)
        return self.format_output(self._handle_fn(instances, self.context) if instances else [])
