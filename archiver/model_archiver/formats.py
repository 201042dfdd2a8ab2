"""Writes a tree and its manifest in one of the archive formats."""

from __future__ import annotations

import io
import secrets
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.staging import walk

MAR_INF: Final = "MAR-INF"
MANIFEST_FILE_NAME: Final = "MANIFEST.json"
SUFFIXES: Final = {"tgz": ".tar.gz", "no-archive": "", "zip-store": ".mar", "default": ".mar"}

_MANIFEST_MEMBER: Final = f"{MAR_INF}/{MANIFEST_FILE_NAME}"


def suffix(archive_format: str) -> str:
    """What an archive's name ends in. Raises ModelArchiverError for an unknown format."""
    if archive_format not in SUFFIXES:
        raise ModelArchiverError(f"Unknown archive format {archive_format!r}, choose from {', '.join(SUFFIXES)}.")
    return SUFFIXES[archive_format]


def write_archive(output: Path, tree: Path, model_name: str, manifest: str, archive_format: str) -> None:
    """Write the tree, then the manifest. A file appears under its name when it is complete; a folder is merged into."""
    if archive_format == "no-archive":
        _write_folder(output, tree, manifest)
        return
    if archive_format == "tgz":
        with _replacing(output) as file:
            _write_tar(file, tree, model_name, manifest)
        return
    write_zip(output, tree, manifest, compressed=archive_format != "zip-store")


def write_zip(output: Path, tree: Path, manifest: str, *, compressed: bool = True, folder: str = MAR_INF) -> None:
    """Write the tree, then the manifest into `folder`. The file appears under its name when it is complete."""
    compression = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with (
        _replacing(output) as file,
        zipfile.ZipFile(file, "w", compression, strict_timestamps=False) as archive,
    ):
        add_to_zip(archive, tree, folder)
        member = zipfile.ZipInfo(f"{folder}/{MANIFEST_FILE_NAME}", time.localtime()[:6])
        member.compress_type = compression
        member.external_attr = 0o644 << 16
        archive.writestr(member, manifest)


def add_to_zip(archive: zipfile.ZipFile, tree: Path, folder: str = MAR_INF) -> None:
    """Add the files of a tree, without the manifest in `folder`."""
    _add(tree, lambda path, name: archive.write(path, name), folder)


def add_to_tar(archive: tarfile.TarFile, tree: Path, model_name: str) -> None:
    """Add the files of a tree, without its manifest, below a folder named like the model."""
    archive.dereference = True  # the files of a staged tree are links
    _add(tree, lambda path, name: archive.add(path, f"{model_name}/{name}"))


def add_to_folder(output: Path, tree: Path) -> None:
    """Copy the files of a tree, without its manifest, into a folder."""

    def copy(path: Path, name: str) -> None:
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)

    _add(tree, copy)


def _add(tree: Path, add: Callable[[Path, str], object], folder: str = MAR_INF) -> None:
    for path, name in walk(tree):
        if name != f"{folder}/{MANIFEST_FILE_NAME}":  # of an unpacked archive that is packed again
            add(path, name)


def _write_tar(file: IO[bytes], tree: Path, model_name: str, manifest: str) -> None:
    content = manifest.encode()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        add_to_tar(archive, tree, model_name)
        member = tarfile.TarInfo(f"{model_name}/{_MANIFEST_MEMBER}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))


def _write_folder(output: Path, tree: Path, manifest: str) -> None:
    target = output / _MANIFEST_MEMBER
    target.parent.mkdir(parents=True, exist_ok=True)
    add_to_folder(output, tree)
    target.write_text(manifest, encoding="utf-8")


@contextmanager
def _replacing(output: Path) -> Iterator[IO[bytes]]:
    partial = output.with_name(f".{output.name}.{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
