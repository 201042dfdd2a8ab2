"""Paths and queries as the contract reads them: decoded first, split afterwards."""

from __future__ import annotations

import re
from binascii import a2b_qp
from typing import Final

from modelserver.errors import BadRequest

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})(.{0,2})", re.DOTALL)
_SEPARATOR = re.compile(rb"[&;]")
_MOST_SHOWN: Final = 1000  # bytes of a bad text
_MOST_FIELDS: Final = 1000  # a field costs far more time and memory than the two bytes it may take


def unescape(text: bytes) -> bytes:
    """Percent-decoded bytes. Raises BadRequest on a bad escape."""
    if b"%" not in text:
        return text
    if (bad := _BAD_ESCAPE.search(text)) is not None:
        escape, whole = bad.group(1).decode("latin-1"), text[:_MOST_SHOWN].decode("latin-1")
        raise BadRequest(f"invalid hex byte '{escape}' at index {bad.start() + 1} of '{whole}'")
    # Quoted-printable is the same code with another mark, and megabytes of it are read in a tenth of urllib's time.
    return a2b_qp(text.replace(b"=", b"=3D").replace(b"%", b"="))


def split_path(raw_path: bytes) -> list[str]:
    """Segments of a path without its trailing empty ones; `/` has none. Raises BadRequest on a bad escape."""
    segments = unescape(raw_path).decode("utf-8", "replace").split("/")[1:]
    while segments and not segments[-1]:
        segments.pop()
    return segments


def parse_query(query: bytes) -> list[tuple[str, str]]:
    """(name, value) in order of appearance; `&` and `;` separate. Raises BadRequest on a bad escape or too many fields.

    A field without a name is one without a value: `=a` is `a`.
    """
    check_count(query.count(b"&") + query.count(b";") + 1)
    pairs = []
    for field in _SEPARATOR.split(query):
        if field := field.lstrip(b"="):
            name, _, value = field.replace(b"+", b" ").partition(b"=")
            pairs.append((unescape(name).decode("utf-8", "replace"), unescape(value).decode("utf-8", "replace")))
    return pairs


def check_count(fields: int) -> None:
    """Raises BadRequest where there are too many fields of a query or a form, or parts of a body."""
    if fields > _MOST_FIELDS:
        raise BadRequest(f"Request has more than {_MOST_FIELDS} fields.")
