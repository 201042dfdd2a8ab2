"""Unpacks zip and gzip-compressed tar files member by member, never outside the target and never through a link."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Self

from modelserver.archives.limits import Limits

_CHUNK: Final = 1 << 20  # bytes
_ZIP_MAGIC: Final = b"PK"
_GZIP_MAGIC: Final = b"\x1f\x8b"


class UnsafeMember(Exception):
    """A member whose name leads out of the target directory."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Detected Zip Slip vulnerability: {name}")


class UnsupportedFormat(Exception):
    """A file that is not of the format its name promises."""


class OverLimit(Exception):
    """An archive that unpacks to more than is allowed."""


def unpack(source: Path, target: Path, limits: Limits | None = None) -> None:
    """Unpack `source` into the existing empty directory `target`.

    A name that ends in `.mar` means zip, every other name a gzip-compressed tar whose first path component is dropped.
    Modes, owners and times are not restored. Raises UnsafeMember, UnsupportedFormat, OverLimit, and whatever the
    readers of the standard library raise on damaged files.
    """
    allowance = _Allowance(limits or Limits())
    with source.open("rb") as file:
        magic = file.read(2)
    if source.name.endswith(".mar"):
        if magic != _ZIP_MAGIC and not zipfile.is_zipfile(source):
            raise UnsupportedFormat("it is not a zip archive")
        _unpack_zip(source, target, allowance)
    elif magic == _GZIP_MAGIC:
        _unpack_tar(source, target, allowance)
    else:
        raise UnsupportedFormat(_expected_tar(source, magic))


def unpack_any(source: Path, target: Path, limits: Limits | None = None) -> None:
    """As `unpack`; what is no archive leaves the target empty."""
    with suppress(UnsupportedFormat):
        unpack(source, target, limits)


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


class _Allowance:
    """What is left of the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = limits.size
        self._members = limits.members

    def count_member(self) -> None:
        """Raises OverLimit."""
        self._members -= 1
        if self._members < 0:
            raise OverLimit(f"it has more than {self._limits.members} members (max_archive_members)")

    def count(self, unpacked: int) -> None:
        """Raises OverLimit."""
        self._bytes -= unpacked
        if self._bytes < 0:
            raise OverLimit(f"it unpacks to more than {self._limits.size} bytes (max_archive_size)")


def _unpack_zip(source: Path, target: Path, allowance: _Allowance) -> None:
    with zipfile.ZipFile(source) as archive:
        for member in archive.infolist():
            allowance.count_member()
            allowance.count(member.file_size)  # as stated: zipfile gives no byte more
        for member in archive.infolist():
            path = member_path(target, member.filename)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            else:
                with archive.open(member) as content:
                    _write(path, content)


def _unpack_tar(source: Path, target: Path, allowance: _Allowance) -> None:
    with gzip.open(source) as stream:
        # A stream (`r|`) refuses to seek backwards, which crafted sparse members could use to unpack without end.
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header, bufsize=_CHUNK) as archive:
            for member in archive:
                allowance.count_member()
                _unpack_tar_member(archive, member, target, allowance)
        # tarfile stops at the end marker; only reading on to the end checks length and checksum of the gzip file.
        while rest := stream.read(_CHUNK):
            allowance.count(len(rest))


def _unpack_tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, allowance: _Allowance) -> None:
    path = member_path(target, _without_root(member))
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
    elif member.issym() or member.islnk():
        _create(path).close()  # links become empty files
    elif content := archive.extractfile(member):  # None for devices and pipes: left out
        allowance.count(member.size)
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
