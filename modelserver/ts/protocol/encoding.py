"""Elements of a handler's result, as the body and head of a response."""

from __future__ import annotations

import io
import re
import sys
from typing import Any, NamedTuple

from ts.context import RequestProcessor
from ts.protocol.json_text import dump_indented

# Announces further pieces of a response; handlers cannot set it.
STREAM_HEADER = "ts_stream_next"

_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_has_break = re.compile(r"[\r\n\0]").search


class NotEncodable(Exception):
    """An element that has no form as bytes; `__cause__` says why."""


class BodyTooLarge(Exception):
    """An encoded element above `max_response_size`."""

    def __init__(self, size: int) -> None:
        super().__init__(
            f"TooLongFrameException: Message size exceed limit: {size}\n"
            "Consider increasing the 'max_response_size' in 'config.properties' to fix."
        )
        self.size = size  # bytes


class Head(NamedTuple):
    """Status line and headers of one response."""

    status: int = 200
    phrase: str = ""
    headers: list[tuple[str, str]] = []  # noqa: RUF012  # never changed: replies only read it


DEFAULT_HEAD = Head()


def encode_body(element: Any, limit: int) -> bytes:
    """Bytes as they are, text as UTF-8, tensors as `torch.save` writes them, all else as indented JSON.

    `limit` in bytes. Raises `NotEncodable` and `BodyTooLarge`.
    """
    if isinstance(element, str):
        body = _encode_text(element)
    elif isinstance(element, bytes | bytearray):
        body = element  # type: ignore[assignment]  # whoever sends it takes a bytearray too, and saves a copy
    elif _is_tensor(element):
        body = _encode_tensor(element)
    else:
        body = _encode_json(element)
    if len(body) > limit:
        raise BodyTooLarge(len(body))
    return body


def encode_head(processor: RequestProcessor) -> Head:
    """What a handler set for one response, fit for the wire.

    A status outside 100..599 becomes 500. Raises `ValueError` or `TypeError` for a status that is no number and for
    header text that would break the response.
    """
    status = int(processor.get_response_status_code())
    phrase = processor.get_response_status_phrase()
    headers = processor.get_response_headers()
    if status == 200 and not phrase and not headers:
        return DEFAULT_HEAD
    return Head(
        status if 100 <= status <= 599 else 500,
        _line("reason phrase", str(phrase)) if phrase else "",
        _encode_headers(headers) if headers else [],
    )


def _encode_text(element: str) -> bytes:
    try:
        return element.encode()
    except UnicodeEncodeError as error:
        raise NotEncodable("text with lone surrogates") from error


def _is_tensor(element: Any) -> bool:
    torch = sys.modules.get("torch")  # not imported: then there are no tensors
    return torch is not None and isinstance(element, torch.Tensor)


def _encode_tensor(tensor: Any) -> bytes:
    buffer = io.BytesIO()
    sys.modules["torch"].save(tensor, buffer)
    return buffer.getvalue()


def _encode_json(element: Any) -> bytes:
    try:
        return dump_indented(element)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotEncodable(f"{type(element).__name__} cannot be written as JSON") from error


def _encode_headers(headers: dict[str, str]) -> list[tuple[str, str]]:
    """One entry per name without regard to case, the last one set."""
    chosen: dict[str, tuple[str, str]] = {}
    for raw_name, raw_value in headers.items():
        name = str(raw_name)
        if not _is_token(name):
            raise ValueError(f"response header name is not valid: {name!r}")
        lower = name.lower()
        if lower != STREAM_HEADER:
            chosen[lower] = (name, _line(f"response header {name}", str(raw_value)))
    return list(chosen.values())


def _line(what: str, text: str) -> str:
    """`text` if it fits on one header line; characters beyond latin-1 become question marks."""
    if _has_break(text):
        raise ValueError(f"{what} contains a line break: {text!r}")
    return text if text.isascii() else text.encode("latin-1", "replace").decode("latin-1")
