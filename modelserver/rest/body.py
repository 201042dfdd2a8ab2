"""A request body as the list of parts that the worker turns into a row."""

from __future__ import annotations

import re

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from modelserver.errors import BadRequest
from modelserver.rest.url import check_count, parse_query, unescape
from modelserver.wire.frames import Part

_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_END = re.compile(rb"\r?\n")  # of a form: a line end within a value is not part of it, nor is what follows
_MAX_PART_HEADERS = 32
_MAX_PART_HEADER = 16 << 10  # bytes


def media_type(content_type: bytes) -> str:
    """A content type without its parameters, spelled as sent."""
    return content_type.partition(b";")[0].strip().decode("latin-1")


def parts_of(content_type: bytes, body: bytes) -> list[Part]:
    """The parts of a body, in order. Raises BadRequest for a form or multipart body that cannot be read."""
    if not content_type:
        return [Part("body", "", body)]
    mime = content_type.partition(b";")[0].decode("latin-1")  # a blank at its end is left: the handler sees it as sent
    kind = mime.strip().lower()
    if kind == _FORM:
        return _form_fields(body)
    if kind == _MULTIPART and (boundary := parse_options_header(content_type)[1].get(b"boundary")):
        return _multipart_parts(boundary, body)
    return [Part("body", mime, body)]


def query_parts(query: bytes) -> list[Part]:
    """The values of a query as parts, in order. Raises BadRequest on a bad escape."""
    return [Part(name, "", value.encode()) for name, value in parse_query(query)]


def _form_fields(body: bytes) -> list[Part]:
    check_count(body.count(b"&") + 1)
    fields = []
    for field in body.split(b"&"):
        name, _, rest = field.replace(b"+", b" ").partition(b"=")
        value = _END.split(rest, 1)[0]
        if name:
            fields.append(Part(unescape(name).decode("utf-8", "replace"), "", unescape(value)))
        elif field:
            raise BadRequest("Invalid form: a field has no name")
        if value is not rest:
            break
    return fields


def _multipart_parts(boundary: bytes, body: bytes) -> list[Part]:
    start = body.find(b"--" + boundary)
    if start < 0:
        return []
    collector = _Collector()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.begin,
                "on_header_field": collector.header_name,
                "on_header_value": collector.header_value,
                "on_part_data": collector.data,
                "on_part_end": collector.end,
            },
            max_header_count=_MAX_PART_HEADERS,
            max_header_size=_MAX_PART_HEADER,
        )
        parser.write(body[start:])
    except FormParserError as error:
        raise BadRequest(f"Invalid multipart body: {error}") from error
    if collector.unfinished:
        raise BadRequest("Invalid multipart body: the last part has no end")
    return collector.parts


class _Collector:
    """Gathers the parser's callbacks into parts."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.unfinished = False
        self._headers: dict[bytes, bytes] = {}
        self._header = b""
        self._value = bytearray()

    def begin(self) -> None:
        check_count(len(self.parts) + 1)
        self.unfinished = True
        self._headers = {}
        self._value = bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._header = data[start:end].lower()

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._headers[self._header] = data[start:end]

    def data(self, data: bytes, start: int, end: int) -> None:
        self._value += memoryview(data)[start:end]

    def end(self) -> None:
        self.unfinished = False
        disposition = self._headers.get(b"content-disposition", b"")
        options = parse_options_header(disposition)[1]
        if not (name := options.get(b"name")):
            raise BadRequest("Invalid multipart body: a part has no name")
        mime = ""
        if b"filename" in options or b"filename*" in disposition.lower():  # only files are decoded by their type
            mime = media_type(self._headers.get(b"content-type", b"application/octet-stream"))
        self.parts.append(Part(name.decode("utf-8", "replace"), mime, bytes(self._value)))
