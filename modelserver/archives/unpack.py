"""Unpacks zip and gzip-compressed tar files member by member, never outside the target and never through a link."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Self

_CHUNK: Final = 1 << 20  # bytes
_ZIP_MAGIC: Final = b"PK"
_GZIP_MAGIC: Final = b"\x1f\x8b"


class UnsafeMember(Exception):
    """A member whose name leads out of the target directory."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Detected Zip Slip vulnerability: {name}")


class UnsupportedFormat(Exception):
    """A file that is not of the format its name promises."""


def unpack(source: Path, target: Path) -> None:
    """Unpack `source` into the existing empty directory `target`.

    A name that ends in `.mar` means zip, every other name a gzip-compressed tar whose first path component is dropped.
    Modes, owners and times are not restored. Raises UnsafeMember, UnsupportedFormat, and whatever the readers of the
    standard library raise on damaged files.
    """
    with source.open("rb") as file:
        magic = file.read(2)
    if source.name.endswith(".mar"):
        if magic != _ZIP_MAGIC and not zipfile.is_zipfile(source):
            raise UnsupportedFormat("it is not a zip archive")
        _unpack_zip(source, target)
    elif magic == _GZIP_MAGIC:
        _unpack_tar(source, target)
    else:
        raise UnsupportedFormat(_expected_tar(source, magic))


def unpack_any(source: Path, target: Path) -> None:
    """As `unpack`; what is no archive leaves the target empty."""
    with suppress(UnsupportedFormat):
        unpack(source, target)


def member_path(target: Path, name: str) -> Path:
    """Where a member goes, compared by path components; an absolute name counts as relative. Raises UnsafeMember."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise UnsafeMember(name)
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return target.joinpath(*parts)


def _unpack_zip(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            path = member_path(target, member.filename)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            else:
                with archive.open(member) as content:
                    _write(path, content)


def _unpack_tar(source: Path, target: Path) -> None:
    with gzip.open(source) as stream:
        # A stream (`r|`) refuses to seek backwards, which crafted sparse members could use to unpack without end.
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header, bufsize=_CHUNK) as archive:
            for member in archive:
                _unpack_tar_member(archive, member, target)
        # tarfile stops at the end marker; only reading on to the end checks length and checksum of the gzip file.
        while stream.read(_CHUNK):
            pass


def _unpack_tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    path = member_path(target, _without_root(member))
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
    elif member.issym() or member.islnk():
        _create(path).close()  # links become empty files
    elif content := archive.extractfile(member):  # None for devices and pipes: left out
        with content:
            _write(path, content)


def _without_root(member: tarfile.TarInfo) -> str:
    # tarfile has cut the slash at the end of a directory's name: without it, the root would look like a bare name.
    name = member.name + "/" if member.isdir() else member.name
    _, slash, rest = name.partition("/")
    return rest if slash else name


def _create(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def _write(path: Path, content: IO[bytes]) -> None:
    with _create(path) as file:
        shutil.copyfileobj(content, file, _CHUNK)


def _expected_tar(source: Path, magic: bytes) -> str:
    if magic == _ZIP_MAGIC:
        return "a zip archive must be named .mar"
    if tarfile.is_tarfile(source):
        return "a tar archive must be compressed with gzip"
    return "it is neither a .mar (zip) nor a gzip-compressed tar archive"


class _Header(tarfile.TarInfo):
    """A member's header; damage is an error, where tarfile takes a damaged header behind the first one for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):  # neither the end of the file nor the block of zeros that marks the end
                raise tarfile.ReadError(str(error)) from error
            raise
