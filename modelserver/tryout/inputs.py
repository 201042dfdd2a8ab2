"""Files of the command line as requests of a batch."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from modelserver.errors import BadRequest
from modelserver.rest.body import media_type, parts_of
from modelserver.tryout.command_line import Options
from modelserver.wire.frames import (
    DESCRIBE,
    EXPLAIN,
    INFER,
    INFER_EXPLAIN,
    KSERVE_EXPLAIN,
    KSERVE_PREDICT,
    PREDICT,
    Part,
    Request,
)

_KINDS: Final = {  # predictions, explanations
    "torchserve": (PREDICT, EXPLAIN),
    "v1": (KSERVE_PREDICT, KSERVE_EXPLAIN),
    "v2": (INFER, INFER_EXPLAIN),
}

Headers = list[tuple[bytes, bytes]]


class BadInput(Exception):
    """An input that cannot be sent; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One request, and how it is called in what is printed."""

    number: int  # from 1
    name: str
    request: Request


def kind_of(options: Options) -> int:
    """The kind of the batches."""
    return DESCRIBE if options.describe else _KINDS[options.protocol][options.explain]


def read_trials(options: Options) -> list[Trial]:
    """The requests, with files read. Raises BadInput."""
    headers = [_header(text) for text in options.headers]
    if options.describe:
        return [Trial(1, "describe", Request(_new_id(), [], headers, {"describe": "True"}))]
    extra = {"explain": str(options.explain)}
    if options.protocol == "torchserve":
        extra["url_path"] = ""
    named = [_of_file(path, options.content_type, headers, extra) for path in options.inputs]
    if options.fields:
        named.append(_of_fields(options.fields, headers, extra))
    return [Trial(number, name, request) for number, (name, request) in enumerate(named, 1)]


def batches(trials: list[Trial], size: int | None) -> Iterator[list[Trial]]:
    """The requests in portions."""
    step = size or len(trials)
    yield from (trials[start : start + step] for start in range(0, len(trials), step))


def _of_file(path: Path, content_type: str | None, headers: Headers, extra: dict[str, str]) -> tuple[str, Request]:
    body = _read(path)
    stated = _guess(path) if content_type is None else content_type
    try:
        parts = parts_of(stated.encode("latin-1", "replace"), body)
    except BadRequest as error:
        raise BadInput(f"{path} as {stated}: {error}") from error
    sent = [*headers, (b"Content-Length", b"%d" % len(body))]
    if stated:
        sent.insert(0, (b"Content-Type", stated.encode("latin-1", "replace")))
    return path.name, Request(_new_id(), parts, sent, extra)


def _of_fields(fields: tuple[str, ...], headers: Headers, extra: dict[str, str]) -> tuple[str, Request]:
    parts = [_part(field) for field in fields]
    sent = [(b"Content-Type", b"multipart/form-data"), *headers]
    return "fields " + ", ".join(part.name for part in parts), Request(_new_id(), parts, sent, extra)


def _part(field: str) -> Part:
    """A file has a type, a text has none, as in a form that a browser sends."""
    name, equals, value = field.partition("=")
    if not (name and equals and value):
        raise BadInput(f"--field {field}: give NAME=FILE, or NAME=@TEXT")
    if value.startswith("@"):
        return Part(name, "", value[1:].encode())
    path = Path(value)
    return Part(name, media_type(_guess(path).encode()) or "application/octet-stream", _read(path))


def _header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not (name.strip() and colon):
        raise BadInput(f"--header {text}: give 'NAME: VALUE'")
    return name.strip().encode("latin-1", "replace"), value.strip().encode("latin-1", "replace")


def _guess(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error


def _new_id() -> str:
    return str(uuid4())
