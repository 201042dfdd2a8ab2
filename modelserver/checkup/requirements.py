"""What a requirements file asks for and this interpreter does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion

_COMMENT = re.compile(r"(^|\s)#.*")


def unsatisfied(lines: Iterable[str]) -> Iterator[str]:
    """One text per requirement that is not met; options, paths and URLs are for pip alone to judge."""
    for line in lines:
        requirement = _parse(line)
        if requirement is None or (requirement.marker and not requirement.marker.evaluate()):
            continue
        try:
            installed = version(requirement.name)
            if not requirement.specifier.contains(installed, prereleases=True):
                yield f"{_shown(requirement)} is asked for, and {installed} is installed"
        except PackageNotFoundError:
            yield f"{_shown(requirement)} is not installed"
        except (InvalidVersion, TypeError):  # of an installation that is broken, or of somebody's own numbering
            yield f"{_shown(requirement)} is asked for, and it cannot be told which version is installed"


def _parse(line: str) -> Requirement | None:
    text = _COMMENT.sub("", line).partition(" --")[0].strip()
    if not text or text.startswith("-"):
        return None
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def _shown(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"
