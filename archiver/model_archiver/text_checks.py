"""Whether configuration and requirements of an archive can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import yaml

from model_archiver.config_keys import complaints
from model_archiver.content import Content
from model_archiver.finding import ERROR, REPACK, WARNING, Finding
from model_archiver.requirements_file import error_in, read_lines


def check_config(content: Content, name: str) -> Iterator[Finding]:
    """That it is a mapping with text keys; warns about what a server ignores."""
    try:
        config: Any = yaml.safe_load(content.read(name)) or {}
    # Tagged nonsense such as `!!int ""` makes PyYAML raise IndexError, KeyError, AttributeError, ...
    except Exception as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        yield Finding(ERROR, where, f"not YAML: {reason}", REPACK)
        return
    if not isinstance(config, dict):
        yield Finding(ERROR, name, "its top level is not a mapping", REPACK)
        return
    for key in config:
        if not isinstance(key, str):
            yield Finding(ERROR, name, f"the key {key!r} is not a text", REPACK)
            return
    for complaint in complaints(config):
        yield Finding(WARNING, name, complaint, REPACK)


def check_requirements(content: Content, name: str) -> Iterator[Finding]:
    """That pip can read each line; warns about files that are not there."""
    try:
        lines = list(read_lines(content.read(name).decode()))
    except ValueError as error:
        yield Finding(ERROR, name, f"not text: {error}", REPACK)
        return
    for line in lines:
        where = f"{name}, line {line.number}"
        if problem := error_in(line):
            yield Finding(ERROR, where, f"not a requirement: {line.text}: {problem}", REPACK)
        elif line.file and not _is_there(content, name, line.file):
            yield Finding(WARNING, where, f"{line.file} is not in the archive", "Pack it with --extra-files.")


def _is_there(content: Content, requirements: str, file: str) -> bool:
    place = str(PurePosixPath(requirements).parent / file)
    return place in content or any(one.place.startswith(f"{place}/") or place == "." for one in content.files)
