"""The lines of a requirements file, as far as pip's rules can be checked without pip."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

_COMMENT = re.compile(r"(^|\s+)#.*$")
_PER_REQUIREMENT = re.compile(r"\s+--(hash|config-settings?|global-option|install-option)[ =].*$")
_FILE_OPTION = re.compile(r"(?:-r|-c|-e|--requirement|--constraint|--editable)(?:\s+|=)?(?P<file>\S+)$")


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement or option."""

    number: int
    text: str  # without comment, continued lines joined
    file: str = ""  # the file it wants in the archive, relative to the requirements file; "" for none

    @property
    def is_option(self) -> bool:
        """True for what is no requirement."""
        return self.text.startswith("-")


def read_lines(text: str) -> Iterator[Line]:
    """Every line that says something."""
    start, joined = 0, ""
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        start = start if joined else number
        joined += raw.removesuffix("\\")
        if raw.endswith("\\") and not raw.lstrip().startswith("#"):
            continue
        if said := _COMMENT.sub("", joined).strip():
            yield Line(start, said, _file_of(said))
        joined = ""
    if said := _COMMENT.sub("", joined).strip():
        yield Line(start, said, _file_of(said))


def error_in(line: Line) -> str:
    """Why pip will refuse a line; "" if that cannot be told."""
    from packaging.requirements import InvalidRequirement, Requirement

    text = _PER_REQUIREMENT.sub("", line.text)
    if line.is_option or line.file or "://" in text or "${" in text:
        return ""
    try:
        Requirement(text)
    except InvalidRequirement as error:
        return str(error).partition("\n")[0]
    return ""


def name_of(line: Line) -> str:
    """The package of a requirement in lower case; "" for options, files and addresses."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line.text)
    return found[0].lower().replace("_", "-") if found and not line.file and "://" not in line.text[:8] else ""


def _file_of(text: str) -> str:
    """A wheel, a folder or another requirements file that the line names by a relative path."""
    if option := _FILE_OPTION.match(text):
        file = option["file"]
    else:
        file = text.split(";")[0].strip()
        if text.startswith("-") or not (file.startswith(".") or file.endswith((".whl", ".tar.gz", ".zip"))):
            return ""
    return "" if "://" in file or "${" in file or PurePosixPath(file).is_absolute() or "@" in file else file
