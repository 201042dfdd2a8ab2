"""Archives that unpack to more than anybody wants: refused, with the limit named, and nothing stays on disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from modelserver.archives.limits import Limits
from modelserver.archives.model_directory import extract
from modelserver.archives.store import ArchiveStore
from modelserver.archives.unpack import OverLimit, unpack
from modelserver.errors import Cause, InternalError

TOO_LARGE = "it unpacks to more than 1000 bytes (max_archive_size)"
TOO_MANY = "it has more than 3 members (max_archive_members)"


def pack(path: Path, members: dict[str, int]) -> Path:
    """An archive of empty space: sizes by name."""
    if path.suffix == ".mar":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, size in members.items():
                archive.writestr(name, bytes(size))
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, size in members.items():
                header = tarfile.TarInfo(name)
                header.size = size
                archive.addfile(header, io.BytesIO(bytes(size)))
    return path


@pytest.fixture(params=["m.mar", "m.tar.gz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / str(request.param)


def test_what_is_just_within_the_limits(tmp_path: Path, path: Path) -> None:
    limits = Limits(size=1000, members=3)
    unpack(pack(path, {"a": 500, "b": 500, "c": 0}), tmp_path / "target", limits)
    assert sum(file.stat().st_size for file in (tmp_path / "target").iterdir()) == 1000


@pytest.mark.parametrize(
    ("members", "reason"),
    [({"a": 1001}, TOO_LARGE), ({"a": 500, "b": 501}, TOO_LARGE), (dict.fromkeys("abcd", 0), TOO_MANY)],
)
def test_what_is_beyond(tmp_path: Path, path: Path, members: dict[str, int], reason: str) -> None:
    with pytest.raises(OverLimit) as caught:
        unpack(pack(path, members), tmp_path / "target", Limits(size=1000, members=3))
    assert str(caught.value) == reason
    assert sum(file.stat().st_size for file in (tmp_path / "target").iterdir()) <= 1000


def test_a_zip_that_is_too_large_is_not_even_begun(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OverLimit):
        unpack(pack(tmp_path / "m.mar", {"a": 10, "b": 1001}), tmp_path / "target", Limits(size=1000))
    assert list((tmp_path / "target").iterdir()) == []


def test_members_that_overlap_count_each(tmp_path: Path) -> None:
    """A small file may unpack to any size when its directory names the same content again and again."""
    path = pack(tmp_path / "m.mar", {"a": 900})
    with zipfile.ZipFile(path, "a") as archive:
        for name in "bc":
            entry = zipfile.ZipInfo(name)
            first = archive.infolist()[0]
            entry.header_offset, entry.CRC = first.header_offset, first.CRC
            entry.compress_size, entry.file_size = first.compress_size, first.file_size
            entry.compress_type = first.compress_type
            archive.filelist.append(entry)
        archive._didModify = True  # type: ignore[attr-defined]
    (tmp_path / "target").mkdir()
    with pytest.raises(OverLimit):
        unpack(path, tmp_path / "target", Limits(size=1000))


def test_a_tar_with_a_tail_without_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "m.tar.gz", {"m/a": 10})
    with path.open("ab") as file:
        file.write(gzip.compress(bytes(4 << 20)))
    (tmp_path / "target").mkdir()
    unpack(path, tmp_path / "target", Limits(size=8 << 20))
    with pytest.raises(OverLimit):
        unpack(path, tmp_path / "target", Limits(size=1 << 20))


def test_the_answer_names_the_limit_and_nothing_stays(tmp_path: Path, path: Path) -> None:
    (tmp_path / "store").mkdir()
    pack(path, {"a": 1001}).rename(tmp_path / "store" / path.name)
    store = ArchiveStore(tmp_path / "store", tmp_path / "temp", [], limits=Limits(size=1000))
    with pytest.raises(InternalError) as caught:
        store.open(path.name)
    assert caught.value.message == f"Failed to save model: {path.name}"
    assert caught.value.certificate is not None
    assert (caught.value.certificate.cause, caught.value.certificate.detail) == (Cause.BAD_ARCHIVE, TOO_LARGE)
    assert list((tmp_path / "temp" / "models").iterdir()) == []


def test_without_limits_of_its_own_an_archive_has_the_defaults(tmp_path: Path, path: Path) -> None:
    directory = extract(pack(path, {"a": 5000}), tmp_path / "models", path.name)
    assert (directory.path / "a").stat().st_size == 5000
