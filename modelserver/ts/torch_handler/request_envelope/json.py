"""Envelope `json`: `{"instances": [...]}` in, `{"predictions": [...]}` out, for whole batches of requests."""

from __future__ import annotations

import base64
import json
from typing import Any

from ts.torch_handler.request_envelope.base import BaseEnvelope, list_of, object_of, value_of
from ts.utils.util import PredictionException


class JSONEnvelope(BaseEnvelope):
    """The handler gets the instances of all requests as one list; `{"b64": text}` in them as bytes."""

    _lengths: tuple[int, ...] = ()  # instances of each request

    def parse_input(self, data: Any) -> list[Any]:
        """Raises `PredictionException` (400) where a request has no instances."""
        requests = [_instances(row) for row in data]
        self._lengths = tuple(map(len, requests))
        return [instance for request in requests for instance in request]

    def format_output(self, data: Any) -> list[str]:
        """For each request the text `{"predictions": [...]}`."""
        answers, start = [], 0
        for length in self._lengths:
            answers.append(json.dumps({"predictions": data[start : start + length]}))
            start += length
        return answers


def _instances(row: Any) -> list[Any]:
    request = object_of(row) if value_of(row) else row
    instances = list_of(request, "instances")
    if not instances:
        raise PredictionException("request has no instances", 400)
    return [_decode(instance) for instance in instances] if isinstance(instances[0], dict) else instances


def _decode(instance: Any) -> Any:
    if not isinstance(instance, dict):
        return instance
    if instance.keys() == {"b64"}:
        return base64.b64decode(instance["b64"])
    return {name: _decode(value) if _is_encoded(value) else value for name, value in instance.items()}


def _is_encoded(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}
