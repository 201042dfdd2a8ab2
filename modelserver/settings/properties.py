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


@dataclass(frozen=True, slots=True)
class Given:
    """The text of one setting and where it stands: `file:line`, `environment TS_X` or `command line --x`."""

    text: str
    source: str


def read_properties(path: Path, name: str, environ: Mapping[str, str]) -> dict[str, Given]:
    """The keys of a file, last one wins; `name` is how sources call the file. Raises ConfigurationError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {name}: {error.strerror}") from None
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
    line = 1
    elements = javaproperties.parse(document)
    while True:
        try:
            element = next(elements, None)
        except javaproperties.InvalidUEscapeError as error:
            raise ConfigurationError(f"Malformed \\uxxxx encoding. ({error.escape}, {name}:{line})") from None
        if element is None:
            return
        if isinstance(element, javaproperties.KeyValue):
            yield _well_formed(element.key), _well_formed(element.value), line
        line += len(re.findall(r"\r\n|\r|\n", element.source))


def _well_formed(text: str) -> str:
    """The text with lone surrogates (`\\ud800`), which no file name and no stream can hold, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _substitute(text: str, environ: Mapping[str, str], place: str) -> str:
    def value(variable: re.Match[str]) -> str:
        if variable[1] not in environ:
            raise ConfigurationError(f"Invalid Environment Variable {variable[1]} ({place})")
        return environ[variable[1]]

    return _VARIABLE.sub(value, text)
