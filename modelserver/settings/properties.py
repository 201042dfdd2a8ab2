"""Files in the syntax of Java's `.properties`, with `$$NAME$$` replaced by environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import javaproperties

from modelserver.errors import ConfigurationError

_VARIABLE: Final = re.compile(r"\$\$(\w+)\$\$")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_BLANKS: Final = " \t\f"
_COMMENT: Final = "#!"
_LARGEST: Final = 16 << 20  # bytes: far above any configuration, and little enough to be read at once


@dataclass(frozen=True, slots=True)
class Given:
    """The text of one setting and where it stands: `file:line`, `environment TS_X` or `command line --x`."""

    text: str
    source: str


def read_properties(path: Path, name: str, environ: Mapping[str, str]) -> dict[str, Given]:
    """The keys of a file, last one wins; `name` is how sources call the file. Raises ConfigurationError."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {name}: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise ConfigurationError(f"{name} is no configuration: it has more than {_LARGEST >> 20} MiB")
    return parse_properties(content, name, environ)


def parse_properties(content: bytes, name: str, environ: Mapping[str, str]) -> dict[str, Given]:
    """As `read_properties`, for the bytes of a file."""
    given: dict[str, Given] = {}
    for key, text, line in _entries(_decode(content), name):
        source = f"{name}:{line}"
        given[key] = Given(_substitute(text, environ, f"{key}, {source}"), source)
    return given


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("iso-8859-1")


def _entries(document: str, name: str) -> Iterator[tuple[str, str, int]]:
    """Key, value and number of the first line of every entry."""
    for line, text in _logical_lines(document):
        try:
            element = next(javaproperties.parse(text), None)
        except javaproperties.InvalidUEscapeError as error:
            raise ConfigurationError(f"Malformed \\uxxxx encoding. ({error.escape}, {name}:{line})") from None
        if isinstance(element, javaproperties.KeyValue):
            yield _well_formed(element.key), _well_formed(element.value), line


def _logical_lines(document: str) -> Iterator[tuple[int, str]]:
    """Number and text of every entry, continued lines joined: the library takes quadratic time for them."""
    pieces: list[str] = []
    first = 0
    for number, line in enumerate(_LINE_END.split(document), 1):
        text = line.lstrip(_BLANKS)
        if not pieces:
            if not text or text[0] in _COMMENT:
                continue
            first = number
        continued = (len(text) - len(text.rstrip("\\"))) % 2
        pieces.append(text[:-1] if continued else text)
        if not continued:
            yield first, _as_entry("".join(pieces))
            pieces.clear()
    yield first, _as_entry("".join(pieces))


def _as_entry(text: str) -> str:
    """Only the line that an entry begins with can make it a comment, not one that continues it."""
    return f"\\{text}" if text and text[0] in _COMMENT else text


def _well_formed(text: str) -> str:
    """The text with lone surrogates (`\\ud800`), which no file name and no stream can hold, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _substitute(text: str, environ: Mapping[str, str], place: str) -> str:
    def value(variable: re.Match[str]) -> str:
        if variable[1] not in environ:
            raise ConfigurationError(f"Invalid Environment Variable {variable[1]} ({place})")
        return environ[variable[1]]

    return _VARIABLE.sub(value, text)
