"""What the server itself writes: JSON text, the headers of every response, error bodies."""

from __future__ import annotations

from typing import Any, Final

import msgspec

import modelserver.dialect.json_text as dialect
from modelserver.errors import ServerError

JSON_TYPE: Final = (b"content-type", b"application/json")
UNCACHED: Final = (
    b"Pragma: no-cache\r\n"
    b"Cache-Control: no-cache; no-store, must-revalidate, private\r\n"
    b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)


def json_text(value: Any) -> bytes:
    """Two-space indentation, raw UTF-8, members that are null left out, one newline at the end."""
    return f"{dialect.json_text(value)}\n".encode("utf-8", "replace")


def error_text(error: ServerError, *, protocol: bool = False) -> bytes:
    """The body of an error response; failures of a worker carry their `cause` as a last member.

    `protocol`: with the member that clients of the Open Inference Protocol read.
    The same text as `json_text` gives, in a sixth of its time: refusing must not cost more than serving.
    """
    members: dict[str, Any] = {"code": error.status, "type": error.type, "message": error.message}
    if protocol:
        members["error"] = error.message
    if error.certificate is not None:
        members["cause"] = error.certificate.as_json()
    try:
        return msgspec.json.format(msgspec.json.encode(members), indent=2) + b"\n"
    except UnicodeEncodeError:  # text that is no Unicode, such as a file name
        return json_text(members)
