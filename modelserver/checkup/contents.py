"""What is odd about the files of an archive, beyond what its opening and the import of its handler show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from model_archiver.manifest_file import PLACE
from model_archiver.verification import verify
from modelserver.archives.archive import Archive
from modelserver.checkup.finding import Finding, warning


def examine_contents(where: str, path: Path, archive: Archive) -> Iterator[Finding]:
    """Of the archive at this path, which has been opened: so nothing here is worse than a warning."""
    for found in verify(path):
        if not _is_told(found.place.partition(", line ")[0], archive):
            yield warning(where, f"{found.place}: {found.problem}", found.remedy)


def _is_told(place: str, archive: Archive) -> bool:
    """Whether another part of the check looks at this file: at the manifest, what it names and lacks, the handler."""
    module = archive.handler.partition(":")[0].removesuffix(".py").rpartition("/")[2]
    if place in ("", PLACE, archive.handler) or PurePosixPath(place).name == f"{module}.py":
        return True
    named = archive.manifest.config_file if archive.manifest else None
    return place == named or (place in _named(archive) and not (archive.directory / place).exists())


def _named(archive: Archive) -> set[str]:
    manifest = archive.manifest
    if manifest is None:
        return set()
    return {name for name in (manifest.serialized_file, manifest.model_file, manifest.requirements_file) if name}
