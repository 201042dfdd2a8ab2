"""The classic byte form of messages to and from a worker: big endian, lengths and counts as signed 32 bit.

The server's own workers speak another form; native workers, and code written for this one, use these functions.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ts.protocol.encoding import STREAM_HEADER, NotEncodable, encode_body

LOAD_MSG = b"L"
PREDICT_MSG = b"I"
RESPONSE = 3
END_OF_LIST = -1
int_size = 4
bool_size = 1

logger = logging.getLogger(__name__)

_pack_int = struct.Struct("!i").pack
_read_int = struct.Struct("!i").unpack
_read_bool = struct.Struct("!?").unpack


class Source(Protocol):
    """Where messages come from, a socket for instance."""

    def recv(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


def retrieve_msg(conn: Source) -> tuple[bytes, Any]:
    """The next command and its content: a dict for `LOAD_MSG`, a list of requests for `PREDICT_MSG`.

    Exits the process with status 0 where the stream ends. Raises `ValueError` for another command.
    """
    command = bytes(_take(conn, 1))
    if command == LOAD_MSG:
        return command, _load_message(conn)
    if command == PREDICT_MSG:
        message = list(_requests(conn))
        logger.info("Backend received inference at: %d", time.time())
        return command, message
    raise ValueError(f"Invalid command: {command!r}")


def create_predict_response(
    ret: Any, req_id_map: Mapping[int, str], message: str, code: int, context: Any = None, ts_stream_next: bool = False
) -> bytes | None:
    """The answer `ret[i]` to each request `req_id_map[i]`; None on ranks other than 0.

    With a context each answer has the status and headers that it holds, else `code` and none. `ts_stream_next` makes it
    a piece of a stream. What cannot be encoded makes the whole answer a failure (503).
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return None
    try:
        bodies = {index: encode_body(ret[index], sys.maxsize) for index in req_id_map}
    except NotEncodable:
        logger.warning("Unable to serialize model output.", exc_info=True)
        failed = dict.fromkeys(req_id_map, "error")
        return create_predict_response(failed, req_id_map, "Unsupported model output data type.", 503)
    parts = [_pack_int(code), _text(message)]
    for index, request_id in req_id_map.items():
        if context is not None:
            _mark_stream(context, index, ret[index], ts_stream_next)
        parts += [_text(request_id), _head(context, index, code), _sized(bodies[index])]
    return b"".join([*parts, _pack_int(END_OF_LIST)])


def create_load_model_response(code: int, message: str) -> bytes:
    """The answer to `LOAD_MSG`."""
    return _pack_int(code) + _text(message) + _pack_int(END_OF_LIST)


def encode_response_headers(resp_hdr_map: Mapping[str, str]) -> bytes:
    """Headers behind their number."""
    pairs = (_text(str(name)) + _text(str(value)) for name, value in resp_hdr_map.items())
    return b"".join([_pack_int(len(resp_hdr_map)), *pairs])


def _mark_stream(context: Any, index: int, result: Any, piece: bool) -> None:
    """Say in the header of a response whether more of it follows."""
    if piece:
        more: bool | None = True
    elif context.stopping_criteria:
        finished = context.stopping_criteria[index](result)
        more = None if finished is None else not finished
    else:
        more = False if context.get_response_headers(index).get(STREAM_HEADER) == "true" else None
    if more is not None:
        context.set_response_header(index, STREAM_HEADER, "true" if more else "false")


def _head(context: Any, index: int, code: int) -> bytes:
    """Content type, status, phrase and headers of one answer."""
    if context is None:
        return _text("") + _pack_int(code) + _text("") + _pack_int(0)
    status, phrase = context.get_response_status(index)
    content_type = context.get_response_content_type(index)
    headers = encode_response_headers(context.get_response_headers(index))
    return _text(content_type or "") + _pack_int(status) + _text(phrase or "") + headers


def _load_message(conn: Source) -> dict[str, Any]:
    message: dict[str, Any] = {
        "modelName": _take_sized(conn),
        "modelPath": _take_sized(conn),
        "batchSize": _take_int(conn),
        "handler": _take_sized(conn),
    }
    gpu = _take_int(conn)
    if gpu >= 0:
        message["gpu"] = gpu
    message["envelope"] = _take_sized(conn)
    (message["limitMaxImagePixels"],) = _read_bool(_take(conn, bool_size))
    return message


def _requests(conn: Source) -> Iterator[dict[str, Any]]:
    for request_id in _until_end(conn):
        headers = [{"name": name, "value": _take_sized(conn)} for name in _until_end(conn)]
        yield {"requestId": request_id, "headers": headers, "parameters": list(_parameters(conn))}


def _parameters(conn: Source) -> Iterator[dict[str, Any]]:
    decode = os.environ.get("TS_DECODE_INPUT_REQUEST", "true") == "true"
    for name in _until_end(conn):
        content_type = _take_sized(conn).decode()
        value: Any = _take_sized(conn)
        value = _decode(content_type, value) if decode else value
        yield {"name": name.decode(), "contentType": content_type, "value": value}


def _decode(content_type: str, value: bytearray) -> Any:
    """JSON and text by their types, all else, and what cannot be decoded, as it came."""
    if content_type == "application/json":
        try:
            return json.loads(value.decode())
        except (ValueError, RecursionError):
            logger.warning("Failed json decoding of input data. Forwarding encoded payload", exc_info=True)
    elif content_type.startswith("text"):
        try:
            return value.decode()
        except UnicodeDecodeError:
            logger.warning("Failed utf-8 decoding of input data. Forwarding encoded payload", exc_info=True)
    return value


def _until_end(conn: Source) -> Iterator[bytearray]:
    """Items of a list, each behind its length; the length -1 ends it."""
    while (length := _take_int(conn)) != END_OF_LIST:
        yield _take(conn, length)


def _take_sized(conn: Source) -> bytearray:
    return _take(conn, _take_int(conn))


def _take_int(conn: Source) -> int:
    (number,) = _read_int(_take(conn, int_size))
    return int(number)


def _take(conn: Source, size: int) -> bytearray:
    data = bytearray()
    while len(data) < size:
        piece = conn.recv(size - len(data))
        if not piece:
            logger.info("Frontend disconnected.")
            sys.exit(0)
        data += piece
    return data


def _text(text: str) -> bytes:
    return _sized(text.encode())


def _sized(data: bytes) -> bytes:
    return _pack_int(len(data)) + data
