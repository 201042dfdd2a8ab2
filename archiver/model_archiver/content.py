"""What an archive holds, whichever form it has: read where it lies, nothing is unpacked."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

MAR: Final = "mar"
TAR_GZ: Final = "tar.gz"
FOLDER: Final = "directory"

FILE: Final = "file"
LINK: Final = "link"  # of a tar archive: a server unpacks it as an empty file
OTHER: Final = "device or pipe"  # a server leaves it out
ENCRYPTED: Final = "encrypted file"

_ZIP_MAGIC: Final = b"PK"
_GZIP_MAGIC: Final = b"\x1f\x8b"
_PIECE: Final = 1 << 20  # bytes
_TEXT_LIMIT: Final = 1 << 24  # bytes of a manifest, a source, ...


_REPACK: Final = "Pack it again with torch-model-archiver"


class Unreadable(Exception):
    """No archive at all; the text says why, `remedy` what to do."""

    def __init__(self, problem: str, remedy: str = _REPACK) -> None:
        super().__init__(problem)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive."""

    name: str  # as the archive spells it
    place: str  # where a server unpacks it, relative to the model directory; "" for outside of it
    size: int  # bytes, unpacked
    kind: str = FILE


class Content:
    """The files of an archive, in its order. `open` and `read` take places."""

    def __init__(
        self, form: str, members: list[Member], opener: Callable[[str], IO[bytes]], stream: IO[bytes] | None = None
    ) -> None:
        """`stream` is what all members are read from, where it has a checksum of its own."""
        self.form = form
        self.members = members
        self._opener = opener
        self._stream = stream
        self._files = {member.place: member for member in members if member.place and member.kind == FILE}

    @property
    def files(self) -> list[Member]:
        """What a server gets of it, sorted by place; of several with one place the last."""
        return sorted(self._files.values(), key=lambda member: member.place)

    def __contains__(self, place: str) -> bool:
        return place in self._files

    def open(self, place: str) -> IO[bytes]:
        """Raises KeyError, and whatever damaged archives make the readers of the standard library raise."""
        return self._opener(self._files[place].name)

    def read_rest(self) -> None:
        """Read what follows the last member. Raises as `open` does."""
        while self._stream is not None and self._stream.read(_PIECE):
            pass

    def read(self, place: str) -> bytes:
        """As `open`; the whole of a text. Raises ValueError for one too large to be any."""
        with self.open(place) as file:
            content = file.read(_TEXT_LIMIT + 1)
        if len(content) > _TEXT_LIMIT:
            raise ValueError(f"larger than {_TEXT_LIMIT} bytes")
        return content


@contextmanager
def open_content(path: Path) -> Iterator[Content]:
    """The content of a `.mar`, a tar archive or a model directory. Raises Unreadable."""
    with ExitStack() as stack:
        try:
            content = _open(path, stack)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, NotImplementedError) as error:
            raise _unreadable(error) from error
        yield content


def place_of(name: str) -> str:
    """Where a member of this name goes; an absolute name counts as relative; "" if that is not in the directory."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _open(path: Path, stack: ExitStack) -> Content:
    if path.is_dir():
        return _of_folder(_innermost(path))
    with path.open("rb") as file:
        magic = file.read(2)
    if path.name.endswith(".war"):
        raise Unreadable("a workflow archive, not a model archive", "Verify the archives of its models")
    if path.name.endswith(".mar"):
        if not zipfile.is_zipfile(path):
            raise Unreadable("not a zip archive, as the suffix .mar promises")
        return _of_zip(stack.enter_context(zipfile.ZipFile(path)))
    if magic == _GZIP_MAGIC:
        return _of_tar(stack.enter_context(tarfile.open(path, "r:gz")))
    if magic == _ZIP_MAGIC:
        raise Unreadable("a zip archive that is not named .mar", "Rename it")
    raise Unreadable("neither a .mar (zip) nor a gzip-compressed tar archive")


def _of_zip(archive: zipfile.ZipFile) -> Content:
    members = [_zip_member(info) for info in archive.infolist() if not info.is_dir()]
    return Content(MAR, members, archive.open)


def _zip_member(info: zipfile.ZipInfo) -> Member:
    kind = FILE
    if info.flag_bits & 1:
        kind = ENCRYPTED
    elif stat.S_ISLNK(info.external_attr >> 16):
        kind = LINK
    return Member(info.filename, place_of(info.filename), info.file_size, kind)


def _of_tar(archive: tarfile.TarFile) -> Content:
    def open_member(name: str) -> IO[bytes]:
        file = archive.extractfile(name)
        assert file is not None  # only files are opened
        return file

    members = [_tar_member(info) for info in archive if not info.isdir()]
    return Content(TAR_GZ, members, open_member, cast(IO[bytes], archive.fileobj))


def _tar_member(info: tarfile.TarInfo) -> Member:
    kind = FILE if info.isfile() else LINK if info.issym() or info.islnk() else OTHER
    _, slash, below_root = info.name.partition("/")
    return Member(info.name, place_of(below_root if slash else info.name), info.size, kind)


def _of_folder(folder: Path) -> Content:
    members = []
    for directory, subfolders, files in os.walk(folder, followlinks=True):
        # A link to a folder above would never end.
        subfolders[:] = [name for name in sorted(subfolders) if not _leads_up(Path(directory, name))]
        for path in sorted(Path(directory, name) for name in files):
            name = path.relative_to(folder).as_posix()
            members.append(Member(name, name, *_folder_facts(path)))
    return Content(FOLDER, members, lambda name: (folder / name).open("rb"))


def _folder_facts(path: Path) -> tuple[int, str]:
    try:
        facts = path.stat()
    except OSError:
        return 0, LINK  # that leads nowhere
    return facts.st_size, FILE if stat.S_ISREG(facts.st_mode) else OTHER


def _leads_up(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _innermost(folder: Path) -> Path:
    """The only folder in a directory stands in for the directory."""
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].name != "MAR-INF" and entries[0].is_dir():
        return entries[0]
    return folder


def _unreadable(error: Exception) -> Unreadable:
    if isinstance(error, OSError) and error.strerror:
        return Unreadable(error.strerror, "Check the path and its permissions")
    return Unreadable(f"damaged: {error or type(error).__name__}", "Copy it again, or pack it again")
