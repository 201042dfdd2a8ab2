"""What requests of REST say of their sequence: in headers, or in the parameters of an inference request.

Looked at for stateful models only.
"""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

import msgspec

from modelserver.engine.job import Job, Membership
from modelserver.errors import BadRequest
from modelserver.settings.sequence_keys import SequenceKeys
from modelserver.wire.frames import INFER, INFER_EXPLAIN, PROTOBUF, TORCHSERVE_PROTOBUF

_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's names of the formats
_NAMES: Final = ("sequence_id", "sequence_start", "sequence_end")


class _Document(msgspec.Struct):
    """Of everything else in a request, which may be megabytes of numbers, no objects are made."""

    parameters: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Document).decode


class Memberships:
    """Reads them."""

    def __init__(self, keys: SequenceKeys, max_request_size: int) -> None:
        """A compressed body is inflated to `max_request_size` bytes at most."""
        self._id = keys.id.lower().encode()
        self._limit = max_request_size

    def __call__(self, job: Job) -> Membership:
        """A header counts more than a body; of several the last one does. Raises BadRequest for ids of a wrong kind.

        What else the headers say, the handler reads there.
        """
        headers = {name.lower(): value for name, value in job.request.headers}
        if id := _text_of(headers.get(self._id, b"")):
            return Membership(id)
        if job.kind in (INFER, INFER_EXPLAIN):
            return membership_of(self._parameters(job, headers))
        return Membership("")

    def _parameters(self, job: Job, headers: dict[bytes, bytes]) -> dict[str, Any]:
        """Those of the request as a whole; none of a request that its worker will not be able to read either."""
        parts = job.request.parts
        if len(parts) != 1 or parts[0].name != "body" or parts[0].mime in (PROTOBUF, TORCHSERVE_PROTOBUF):
            return {}
        length = headers.get(b"inference-header-content-length", b"").strip()
        size = int(length) if length.isdigit() and len(length) < 20 else None
        body = _inflated(parts[0].value, headers.get(b"content-encoding", b""), min(size or self._limit, self._limit))
        return parameters_of(body[:size])


def _text_of(value: bytes) -> str:
    """An id in UTF-8 is the same by all protocols; HTTP's own latin-1 is no UTF-8 by itself, most often."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def parameters_of(body: bytes) -> dict[str, Any]:
    """The member `parameters` of a JSON object; none of anything else."""
    try:
        parameters = msgspec.json.decode(_decode(body).parameters)
    except (msgspec.MsgspecError, RecursionError):
        parameters = _lenient_parameters(body)
    return parameters if isinstance(parameters, dict) else {}


def _lenient_parameters(body: bytes) -> Any:
    """The same of what Python takes for JSON: numbers may be NaN."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document.get("parameters") if isinstance(document, dict) else None


def membership_of(parameters: dict[str, Any]) -> Membership:
    """What parameters of Open Inference say; an id of 0 is none. Raises BadRequest."""
    id, start, end = (parameters.get(name) for name in _NAMES)
    if isinstance(id, bool) or not isinstance(id, int | str | None):
        raise BadRequest("Parameter sequence_id must be an integer or a string.")
    for name, value in (("sequence_start", start), ("sequence_end", end)):
        if not isinstance(value, bool | None):
            raise BadRequest(f"Parameter {name} must be true or false.")
    return Membership(str(id) if id else "", start=bool(start), end=bool(end))


def _inflated(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The beginning of a body without its encoding, `limit` bytes at most; nothing of what cannot be inflated."""
    coding = encoding.strip().lower().decode("latin-1")
    if coding in ("", "identity"):
        return body
    if coding not in _WINDOWS:
        return b""
    try:
        return zlib.decompressobj(_WINDOWS[coding]).decompress(body, limit)
    except zlib.error:
        return b""
