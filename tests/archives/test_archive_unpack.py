"""Unpacking: what lands where, what never leaves the target, what is refused."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelserver.archives.model_directory import extract
from modelserver.archives.unpack import UnsafeMember, UnsupportedFormat, member_path, unpack
from modelserver.errors import InternalError, InvalidModel

Members = Mapping[str, bytes]


def make_zip(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def make_tar(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type = kind
    header.linkname = target
    return header


def tree(root: Path) -> dict[str, bytes | None]:
    """Relative path -> content, None for folders."""
    return {path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    directory = tmp_path / "target"
    directory.mkdir()
    return directory


def test_a_zip_with_folders_absolute_and_dotted_names(tmp_path: Path, target: Path) -> None:
    members = {"h.py": b"1", "a/b/": b"", "a/b/c": b"2", "/abs/d": b"3", "./e": b"4", "x/../f": b"5", "./": b""}
    unpack(make_zip(tmp_path / "m.mar", members), target)
    assert tree(target) == {
        "h.py": b"1",
        "a": None,
        "a/b": None,
        "a/b/c": b"2",
        "abs": None,
        "abs/d": b"3",
        "e": b"4",
        "f": b"5",
    }


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_last_of_two_members_of_one_name_wins(tmp_path: Path, target: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        archive.writestr("h.py", "a longer first text")
        archive.writestr("h.py", "second")
    unpack(tmp_path / "m.mar", target)
    assert tree(target) == {"h.py": b"second"}


def test_a_symbolic_link_in_a_zip_is_a_file(tmp_path: Path, target: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        archive.writestr(link, "/etc")
    unpack(tmp_path / "m.mar", target)
    assert not (target / "link").is_symlink()
    assert tree(target) == {"link": b"/etc"}


def test_modes_are_not_restored(tmp_path: Path, target: Path) -> None:
    header = tarfile.TarInfo("m/tool")
    header.mode = 0o4777
    header.size = 1
    with tarfile.open(tmp_path / "m.tar.gz", "w:gz") as archive:
        archive.addfile(header, io.BytesIO(b"x"))
    unpack(tmp_path / "m.tar.gz", target)
    assert (target / "tool").stat().st_mode & 0o7111 == 0


def test_a_tar_loses_its_root_directory(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "m.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(special("m", tarfile.DIRTYPE))
        archive.addfile(special("m/empty", tarfile.DIRTYPE))
        for name in ("m/h.py", "m/sub/x", "bare", "/abs/y"):
            header = tarfile.TarInfo(name)
            header.size = 1
            archive.addfile(header, io.BytesIO(b"x"))
    unpack(path, target)
    assert tree(target) == {
        "empty": None,
        "h.py": b"x",
        "sub": None,
        "sub/x": b"x",
        "bare": b"x",
        "abs": None,
        "abs/y": b"x",
    }


def test_a_tar_made_from_a_dot(tmp_path: Path, target: Path) -> None:
    unpack(make_tar(tmp_path / "m.tar.gz", {"./h.py": b"1", "./MAR-INF/MANIFEST.json": b"{}"}), target)
    assert tree(target) == {"h.py": b"1", "MAR-INF": None, "MAR-INF/MANIFEST.json": b"{}"}


def test_links_in_a_tar_become_empty_files_and_devices_nothing(tmp_path: Path, target: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    path = tmp_path / "m.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(special("m/door", tarfile.SYMTYPE, str(outside)))
        archive.addfile(special("m/hard", tarfile.LNKTYPE, "/etc/passwd"))
        archive.addfile(special("m/pipe", tarfile.FIFOTYPE))
        archive.addfile(special("m/null", tarfile.CHRTYPE))
    unpack(path, target)
    assert tree(target) == {"door": b"", "hard": b""}
    assert not (target / "door").is_symlink()


def test_nothing_goes_through_a_link(tmp_path: Path, target: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    path = tmp_path / "m.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(special("m/door", tarfile.SYMTYPE, str(outside)))
        header = tarfile.TarInfo("m/door/x")
        header.size = 1
        archive.addfile(header, io.BytesIO(b"x"))
    with pytest.raises(OSError):
        unpack(path, target)
    assert tree(outside) == {}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "a/../..", "/../x", "./../x"])
def test_names_that_lead_out_of_the_target(tmp_path: Path, target: Path, name: str) -> None:
    with pytest.raises(UnsafeMember, match="Detected Zip Slip vulnerability: "):
        unpack(make_zip(tmp_path / "m.mar", {name: b"x"}), target)
    with pytest.raises(UnsafeMember):
        unpack(make_tar(tmp_path / "m.tar.gz", {"root/" + name: b"x"}), target)
    assert tree(target) == {}


def test_a_sibling_with_the_same_beginning_is_outside(tmp_path: Path, target: Path) -> None:
    with pytest.raises(UnsafeMember):
        member_path(target, f"../{target.name}-sibling/x")


member_names = st.lists(
    st.sampled_from(["..", ".", "", "a", "b.py", "MAR-INF", "...", "..a", "c:", "\\", "é", " ", "-"]),
    min_size=1,
    max_size=6,
).map("/".join) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(member_names)
def test_a_member_path_is_below_the_target_or_refused(name: str) -> None:
    target = Path("/srv/models/0123.download")
    try:
        path = member_path(target, name)
    except UnsafeMember:
        assert ".." in name.split("/")
    else:
        assert path.is_relative_to(target)
        assert ".." not in path.parts


@settings(max_examples=60, deadline=None)
@given(st.lists(member_names, min_size=1, max_size=4, unique=True), st.sampled_from(["m.mar", "m.tar.gz"]))
def test_nothing_is_ever_written_outside(names: list[str], file_name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make = make_zip if file_name == "m.mar" else make_tar
        archive = make(root / file_name, dict.fromkeys(names, b"content"))
        try:
            directory = extract(archive, root / "models", file_name)
        except InternalError:
            assert list((root / "models").iterdir()) == []
        else:
            assert list((root / "models").iterdir()) == [directory.root]
        assert {path.name for path in root.iterdir()} == {file_name, "models"}


CONTENT = {"m/h.py": bytes(range(256)) * 40, "m/MAR-INF/MANIFEST.json": b'{"model": {"modelName": "m"}}'}


@pytest.mark.parametrize("file_name", ["m.mar", "m.tar.gz"])
def test_every_truncation_is_refused(tmp_path: Path, file_name: str) -> None:
    make = make_zip if file_name == "m.mar" else make_tar
    whole = make(tmp_path / file_name, CONTENT).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / file_name).write_bytes(whole[:length])
        with pytest.raises((InternalError, InvalidModel), match=r"^Failed to save model: the-url"):
            extract(tmp_path / file_name, tmp_path / "models", "the-url")
        assert list((tmp_path / "models").iterdir()) == []


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(["m.mar", "m.tar.gz"]))
def test_damage_never_raises_anything_else(data: st.DataObject, file_name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make = make_zip if file_name == "m.mar" else make_tar
        content = bytearray(make(root / file_name, CONTENT).read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (root / file_name).write_bytes(content)
        try:
            extract(root / file_name, root / "models", "u").remove()
        except (InternalError, InvalidModel):
            pass
        assert list((root / "models").iterdir()) == []


def test_a_damaged_header_inside_a_tar_is_not_taken_for_its_end(tmp_path: Path, target: Path) -> None:
    members = make_tar(tmp_path / "m.tar.gz", {"m/a": b"x" * 512, "m/b": b"y"})
    content = bytearray(gzip.decompress(members.read_bytes()))
    content[1024 + 148] ^= 0xFF  # checksum of the second header
    members.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(tarfile.ReadError):
        unpack(members, target)


def test_a_wrong_checksum_behind_the_end_marker(tmp_path: Path, target: Path) -> None:
    path = make_tar(tmp_path / "m.tar.gz", {"m/a": b"x"})
    padded = gzip.decompress(path.read_bytes()) + bytes(4 << 20)
    content = bytearray(gzip.compress(padded, mtime=0))
    content[-8] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(gzip.BadGzipFile):
        unpack(path, target)


def plain_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(special("m", tarfile.DIRTYPE))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.mar", b"", "it is not a zip archive"),
        ("m.mar", b"<html>Not Found</html>", "it is not a zip archive"),
        ("m.mar", gzip.compress(b"x", mtime=0), "it is not a zip archive"),
        ("m.tar", plain_tar(), "a tar archive must be compressed with gzip"),
        ("m.tar.xz", lzma.compress(plain_tar()), "a tar archive must be compressed with gzip"),
        ("m.MAR", b"PK\x03\x04", "a zip archive must be named .mar"),
        ("m.model", b"weights", "it is neither a .mar (zip) nor a gzip-compressed tar archive"),
        ("m.tar.gz", b"", "it is neither a .mar (zip) nor a gzip-compressed tar archive"),
    ],
)
def test_unsupported_formats_are_named(tmp_path: Path, target: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedFormat) as caught:
        unpack(tmp_path / name, target)
    assert str(caught.value) == reason


def test_a_zip_with_something_in_front_is_still_a_zip(tmp_path: Path, target: Path) -> None:
    path = make_zip(tmp_path / "m.mar", {"h.py": b"x"})
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    unpack(path, target)
    assert tree(target) == {"h.py": b"x"}


@pytest.mark.parametrize("file_name", ["m.mar", "m.tar.gz"])
def test_members_are_streamed(tmp_path: Path, target: Path, file_name: str) -> None:
    make = make_zip if file_name == "m.mar" else make_tar
    archive = make(tmp_path / file_name, {"m/weights": bytes(64 << 20)})
    tracemalloc.start()
    try:
        unpack(archive, target)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert next(target.rglob("weights")).stat().st_size == 64 << 20
