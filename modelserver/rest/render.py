"""What the server itself writes: JSON text, the headers of every response, error bodies, request ids."""

from __future__ import annotations

import json
import os
from typing import Any, Final

import msgspec

from modelserver.errors import ServerError

JSON_TYPE: Final = (b"content-type", b"application/json")
UNCACHED: Final = (
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)

_POOL = 256  # request ids per read of the system's random source
_VARIANT = "89ab"


def json_text(value: Any) -> bytes:
    """Two-space indentation, raw UTF-8, members that are null left out, one newline at the end."""
    text = json.dumps(_without_nulls(value), indent=2, ensure_ascii=False)
    return f"{text}\n".encode("utf-8", "replace")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(element) for element in value]
    return value


def error_text(error: ServerError) -> bytes:
    """The body of an error response; failures of a worker carry their `cause` as a last member.

    The same text as `json_text` gives, in a sixth of its time: refusing must not cost more than serving.
    """
    members: dict[str, Any] = {"code": error.status, "type": error.type, "message": error.message}
    if error.certificate is not None:
        members["cause"] = error.certificate.as_json()
    try:
        return msgspec.json.format(msgspec.json.encode(members), indent=2) + b"\n"
    except UnicodeEncodeError:  # text that is no Unicode, such as a file name
        return json_text(members)


class RequestIds:
    """Makes random UUIDs (version 4) as text; a read of the system's random source serves many of them."""

    __slots__ = ("_at", "_digits")

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def next(self) -> str:
        """A new id, 36 characters."""
        at = self._at
        if at == len(self._digits):
            self._digits = os.urandom(16 * _POOL).hex()
            at = 0
        self._at = at + 32
        digits = self._digits[at : at + 32]
        variant = _VARIANT[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
