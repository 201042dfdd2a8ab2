"""A handler's result as replies."""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from typing import Any

from modelserver.wire.frames import Failure, Reply
from modelserver.worker.batch_context import BatchContext
from modelserver.worker.failures import HANDLER_CONTRACT, REPLY_TOO_LARGE, ResultRejected
from ts.protocol.encoding import BodyTooLarge, NotEncodable, encode_body, encode_head


def check_result(result: Any, expected: int, model_name: str) -> None:
    """Raises `ResultRejected` unless the result is a list with one element per request."""
    if not isinstance(result, list):
        log = f"model: {model_name}, Invalid return type: {type(result)}."
        got = f"a {type(result).__name__}"
        if isinstance(result, Coroutine):
            result.close()
            got += " (of an asynchronous handler: set asyncCommunication: true in the model's configuration)"
        raise ResultRejected(503, "Invalid model predict output", log, _broken(expected, got))
    if len(result) != expected:
        log = f"model: {model_name}, number of batch response mismatched, expect: {expected}, got: {len(result)}."
        got = f"{len(result)} elements"
        raise ResultRejected(503, "number of batch response mismatched", log, _broken(expected, got))


def encode_replies(result: list[Any], context: BatchContext, begun: Collection[int], limit: int) -> list[Reply]:
    """One reply per element, with the status and headers that the handler set.

    `begun` holds the positions of requests that got pieces before; `limit` is in bytes of one body. Raises
    `ResultRejected`; `ValueError` or `TypeError` for a head that cannot be sent.
    """
    try:
        bodies = [encode_body(element, limit) for element in result]
    except NotEncodable as error:
        rule = f"a handler returns elements that are bytes, str, tensors or JSON: {error}: {error.__cause__}"
        failure = Failure(HANDLER_CONTRACT, rule)
        log = "Unable to serialize model output."
        raise ResultRejected(503, "Unsupported model output data type.", log, failure) from error
    except BodyTooLarge as error:
        detail = f"a reply of {error.size} bytes exceeds max_response_size of {limit} bytes"
        raise ResultRejected(500, "Worker died.", str(error), Failure(REPLY_TOO_LARGE, detail)) from None
    if not context.touched:
        return [Reply(index, body, streamed=index in begun) for index, body in enumerate(bodies)]
    heads = map(encode_head, context.request_processor or ())
    return [
        Reply(index, body, *head, index in begun) for index, (body, head) in enumerate(zip(bodies, heads, strict=True))
    ]


def _broken(expected: int, got: str) -> Failure:
    """The rule that a result breaks."""
    rule = f"a handler returns a list with one element for each request of the batch: expected {expected}, got {got}"
    return Failure(HANDLER_CONTRACT, rule)
