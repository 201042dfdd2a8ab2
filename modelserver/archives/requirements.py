"""What a requirements file asks for, as facts: two models with the same facts can share an environment."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement

_SHORT: Final = {"requirement": "-r", "constraint": "-c", "find_links": "-f", "editable": "-e"}  # of long options
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_CONTINUED: Final = re.compile(r"\\\r?\n")
_DEPTH: Final = 20  # of files that include others


class NotShareable(Exception):
    """Something that is the model's own: an editable installation leads back into its directory."""


def facts_of(requirements: Path, directory: Path, depth: int = 0) -> Iterator[str]:
    """Every line of a requirements file, and what the files are that it names; relative ones count from `directory`.

    Raises NotShareable, and OSError for a file that cannot be read.
    """
    if depth > _DEPTH:
        raise NotShareable(f"{requirements} includes itself")
    text = _CONTINUED.sub("", requirements.read_text("utf-8", "replace"))
    for line in filter(None, (_COMMENT.sub("", line).strip() for line in text.splitlines())):
        yield line
        yield from _files_of(line, requirements.parent, directory, depth)


def folder_facts(folder: Path) -> Iterator[str]:
    """Names, sizes and times of the files in a folder of packages: what is in them would take long to read."""
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            facts = path.stat()
            yield f"{path.name} {facts.st_size} {facts.st_mtime_ns}"


def _files_of(line: str, beside: Path, directory: Path, depth: int) -> Iterator[str]:
    option, value = _option(line)
    if option == "-e":
        raise NotShareable(line)
    if option in ("-r", "-c") and "://" not in value:
        yield from facts_of(beside / value, directory, depth + 1)
    elif option == "-f" and (path := _path(value)):
        for folder in dict.fromkeys((beside / path, directory / path)):
            # The times of unpacked files are those of the unpacking.
            yield from _content(folder) if folder.is_relative_to(directory) else folder_facts(folder)
    elif not option and (path := _local(line)):
        yield from _content(directory / path)


def _option(line: str) -> tuple[str, str]:
    """`-r more.txt`, `-rmore.txt` and `--requirement=more.txt` as `-r` and value; ("", "") for a requirement."""
    if not line.startswith("-"):
        return "", ""
    if line.startswith("--"):
        name, _, value = line.replace("=", " ", 1).partition(" ")
        return _SHORT.get(name[2:].replace("-", "_"), name), value.strip().strip("\"'")
    return line[:2], line[2:].strip().strip("\"'")


def _local(line: str) -> str:
    """The path that a requirement is, or that it has behind an `@`; "" if it names a package or something remote."""
    try:
        url = Requirement(line.split(" --", 1)[0]).url
    except InvalidRequirement:
        url = _first_word(line)
    return _path(re.sub(r"\[[\w.,-]*\]$", "", url)) if url else ""


def _first_word(line: str) -> str:
    try:
        return shlex.split(line)[0]
    except ValueError:  # quotes that do not match: pip will say so
        return line


def _path(text: str) -> str:
    """A path or `file:` url as a path, "" for another url."""
    if text.startswith("file:"):
        return unquote(urlsplit(text).path)
    return "" if "://" in text else text


def _content(path: Path) -> Iterator[str]:
    """A digest of a file, or of every file of a folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            with file.open("rb") as stream:
                yield f"{file.relative_to(path)} {hashlib.file_digest(stream, 'sha256').hexdigest()}"
