"""What the archiver packs: members, manifest, handler forms, extra files, formats, overwriting."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from model_archiver import ModelArchiver, ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError

check = pytest.mark.check


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with some artifacts, an output directory and a temporary directory of its own."""
    directory = tmp_path / "work"
    files = {
        "h.py": "handler",
        "lib/h2.py": "handler 2",
        "weights.pt": "weights",
        "model.py": "model",
        "req.txt": "numpy",
        "cfg.yaml": "minWorkers: 1",
        "extra/a.txt": "a",
        "extra/.dotfile": "dot",
        "extra/sub/b.txt": "b",
        "extra/sub/deep/c.txt": "c",
        "extra/__pycache__/x.pyc": "cache",
        "extra/.hid/x": "hidden",
        "extra/sub/__MACOSX/x": "mac",
    }
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    (directory / "extra" / "empty").mkdir()
    (directory / "out").mkdir()
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.chdir(directory)
    return directory


def pack(handler: str = "h.py", **fields: Any) -> Path:
    """Pack `m` into `out`; returns the directory."""
    fields = {"version": "1.0", "export_path": "out"} | fields
    ModelArchiver.generate_model_archive(ModelArchiverConfig(fields.pop("model_name", "m"), handler, **fields))
    return Path("out")


def members(path: Path = Path("out/m.mar")) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def manifest(path: Path = Path("out/m.mar")) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("MAR-INF/MANIFEST.json"))


def text(name: str) -> str:
    with zipfile.ZipFile("out/m.mar") as archive:
        return archive.read(name).decode()


@check("archive", 2)
def test_the_full_example() -> None:
    pack(
        "lib/h2.py",
        model_name="full",
        serialized_file="weights.pt",
        model_file="model.py",
        requirements_file="req.txt",
        config_file="cfg.yaml",
        extra_files="extra",
    )
    path = Path("out/full.mar")
    assert members(path) == [
        ".dotfile",
        "a.txt",
        "cfg.yaml",
        "h2.py",
        "model.py",
        "req.txt",
        "weights.pt",
        "sub/b.txt",
        "sub/deep/c.txt",
        "MAR-INF/MANIFEST.json",
    ]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_DEFLATED}
        document = archive.read("MAR-INF/MANIFEST.json").decode("ascii")
    assert re.sub(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d", "<date>", document) == (
        "{\n"
        '  "createdOn": "<date>",\n'
        '  "runtime": "python",\n'
        '  "model": {\n'
        '    "modelName": "full",\n'
        '    "serializedFile": "weights.pt",\n'
        '    "handler": "h2.py",\n'
        '    "modelFile": "model.py",\n'
        '    "modelVersion": "1.0",\n'
        '    "requirementsFile": "req.txt",\n'
        '    "configFile": "cfg.yaml"\n'
        "  },\n"
        '  "archiverVersion": "0.12.0"\n'
        "}"
    )


@check("archive", 3)
def test_options_that_are_not_given_are_absent() -> None:
    pack("base_handler", version="", serialized_file="", extra_files="")
    assert manifest()["model"] == {"modelName": "m", "handler": "base_handler"}
    assert members() == ["MAR-INF/MANIFEST.json"]


@check("archive", 6)
@pytest.mark.parametrize(
    ("handler", "file", "entry"),
    [
        ("lib/h2.py", "h2.py", "h2.py"),
        ("lib/h2", "h2.py", "h2"),
        ("lib/h2:fn", "h2.py", "h2:fn"),
        ("lib/h2.py:fn", "h2.py", "h2.py:fn"),
        ("h", "h.py", "h"),
        *[
            (name, None, name)
            for name in (
                "base_handler",
                "text_classifier",
                "image_classifier",
                "object_detector",
                "image_segmenter",
                "dali_image_classifier",
                "vllm_handler",
                "trt_llm_handler",
            )
        ],
    ],
)
def test_handler_forms(handler: str, file: str | None, entry: str) -> None:
    pack(handler)
    assert members() == [*filter(None, [file]), "MAR-INF/MANIFEST.json"]
    assert manifest()["model"]["handler"] == entry


def test_a_text_with_py_inside_is_the_path_itself(work: Path) -> None:
    (work / "h.pyc").write_text("compiled")
    pack("h.pyc")
    assert members()[0] == "h.pyc"


@pytest.mark.parametrize("handler", ["densenet_handler", "base_handler:fn", "", "missing.py", "missing:fn"])
def test_missing_handlers(tmp_path: Path, handler: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"^\[Errno 2\] No such file or directory: '"):
        pack(handler)
    assert list((tmp_path / "temp").iterdir()) == []
    assert list(Path("out").iterdir()) == []


def test_native_handlers(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack("TorchScriptHandler", runtime="LSP")
    assert members() == ["MAR-INF/MANIFEST.json"]
    for platform, name in (("linux", "foo.so"), ("darwin", "foo.dylib")):
        monkeypatch.setattr("sys.platform", platform)
        (work / "lib" / name).write_text("library")
        pack("lib/foo:Bar", runtime="LSP", force=True)
        assert members() == [name, "MAR-INF/MANIFEST.json"]
        assert manifest()["model"]["handler"] == "foo:Bar"


@pytest.mark.parametrize("field", ["serialized_file", "model_file", "requirements_file", "config_file"])
def test_artifacts_must_be_files(tmp_path: Path, field: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"^\[Errno 2\] No such file or directory: 'missing'$"):
        pack(**{field: "missing"})
    with pytest.raises(IsADirectoryError, match="'lib'"):
        pack(**{field: "lib"})
    with pytest.raises(OSError, match=r"^Not a regular file: /dev/null$"):
        pack(**{field: "/dev/null"})
    assert list((tmp_path / "temp").iterdir()) == []
    assert list(Path("out").iterdir()) == []


@check("archive", 7)
def test_extra_files_are_flattened_and_later_ones_win(work: Path) -> None:
    (work / "other").mkdir()
    (work / "other" / "a.txt").write_text("other a")
    pack(extra_files=" extra/a.txt, other/a.txt ,lib/,,")
    assert members() == ["a.txt", "h.py", "h2.py", "MAR-INF/MANIFEST.json"]
    assert text("a.txt") == "other a"


def test_extra_files_beat_the_handler_and_lose_to_the_configuration(work: Path) -> None:
    (work / "other").mkdir()
    for name in ("h.py", "cfg.yaml"):
        (work / "other" / name).write_text("other")
    pack(config_file="cfg.yaml", extra_files="other")
    assert (text("h.py"), text("cfg.yaml")) == ("other", "minWorkers: 1")


@check("archive", 7)
def test_wildcards(caplog: pytest.LogCaptureFixture) -> None:
    pack(extra_files="ext*/a.t?t,li[ab],no*thing")
    assert members() == ["a.txt", "h.py", "h2.py", "MAR-INF/MANIFEST.json"]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "Given wildcard pattern did not match any file: no*thing")
    ]


@pytest.mark.parametrize("entry", ["nope", "[x", "extra/nope"])
def test_missing_extra_files(tmp_path: Path, entry: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"^File does not exist: {re.escape(entry)}$"):
        pack(extra_files=f"h.py,{entry}")
    assert list((tmp_path / "temp").iterdir()) == []


def test_a_subfolder_that_two_folders_bring(work: Path) -> None:
    shutil.copytree("extra", "again")
    with pytest.raises(FileExistsError):
        pack(extra_files="extra,again")


def test_an_unpacked_archive_can_be_packed_again(work: Path) -> None:
    (work / "extra" / "MAR-INF").mkdir()
    (work / "extra" / "MAR-INF" / "MANIFEST.json").write_text("{}")
    (work / "extra" / "MAR-INF" / "signature").write_text("kept")
    pack(extra_files="extra")
    assert members().count("MAR-INF/MANIFEST.json") == 1
    assert "MAR-INF/signature" in members()
    assert manifest()["model"]["modelName"] == "m"


def test_times_are_kept_also_those_before_1980() -> None:
    os.utime("h.py", (0, 0))
    os.utime("weights.pt", (1_000_000_000, 1_000_000_000))
    pack(serialized_file="weights.pt")
    with zipfile.ZipFile("out/m.mar") as archive:
        assert archive.getinfo("h.py").date_time[0] == 1980
        assert archive.getinfo("weights.pt").date_time[0] == 2001


def test_symbolic_links_are_packed_as_what_they_point_to(work: Path) -> None:
    (work / "linked").mkdir()
    (work / "linked" / "w.pt").symlink_to(work / "weights.pt")
    for archive_format in ("default", "tgz", "no-archive"):
        pack(extra_files="linked", archive_format=archive_format)
    assert text("w.pt") == "weights"
    with tarfile.open("out/m.tar.gz") as archive:
        assert archive.getmember("m/w.pt").isreg()
    assert not Path("out/m/w.pt").is_symlink()


def test_zip_store_does_not_compress() -> None:
    pack(extra_files="extra", archive_format="zip-store")
    with zipfile.ZipFile("out/m.mar") as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert "sub/b.txt" in archive.namelist()


def test_tgz_has_one_root_folder() -> None:
    pack(extra_files="extra", archive_format="tgz")
    with tarfile.open("out/m.tar.gz") as archive:
        listed = archive.getmembers()
        assert [member.name for member in listed] == [
            "m/.dotfile",
            "m/a.txt",
            "m/h.py",
            "m/sub/b.txt",
            "m/sub/deep/c.txt",
            "m/MAR-INF/MANIFEST.json",
        ]
        assert all(member.isreg() for member in listed)
        assert (listed[-1].mode, listed[-1].mtime) == (0o644, 0)
        document = archive.extractfile(listed[-1])
        assert document is not None and json.load(document)["model"]["modelName"] == "m"


def test_no_archive_merges_into_its_folder(caplog: pytest.LogCaptureFixture) -> None:
    pack(extra_files="extra", archive_format="no-archive")
    Path("out/m/stale.txt").write_text("of the user")
    with pytest.raises(ModelArchiverError, match=r"^out/m already exists"):
        pack(archive_format="no-archive")
    pack(archive_format="no-archive", force=True)
    assert "Overwriting out/m ..." in caplog.text
    files = sorted(path.relative_to("out/m").as_posix() for path in Path("out/m").rglob("*") if path.is_file())
    assert files == [
        ".dotfile",
        "MAR-INF/MANIFEST.json",
        "a.txt",
        "h.py",
        "stale.txt",
        "sub/b.txt",
        "sub/deep/c.txt",
    ]
    assert not Path("out/m/h.py").is_symlink()


def test_no_archive_may_be_written_into_the_temporary_directory(tmp_path: Path) -> None:
    pack(export_path=str(tmp_path / "temp"), archive_format="no-archive")
    assert sorted(path.name for path in (tmp_path / "temp").iterdir()) == ["m"]
    assert (tmp_path / "temp" / "m" / "h.py").read_text() == "handler"


def test_a_folder_in_the_temporary_directory_that_is_named_like_the_model_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "temp" / "models").mkdir()
    (tmp_path / "temp" / "models" / "keep").write_text("of a server")
    pack(model_name="models")
    assert (tmp_path / "temp" / "models" / "keep").exists()


@check("archive", 18)
@pytest.mark.parametrize(
    ("archive_format", "output"), [("default", "m.mar"), ("zip-store", "m.mar"), ("tgz", "m.tar.gz")]
)
def test_overwriting_needs_force(archive_format: str, output: str, caplog: pytest.LogCaptureFixture) -> None:
    pack(archive_format=archive_format)
    first = Path("out", output).read_bytes()
    with pytest.raises(ModelArchiverError) as caught:
        pack("lib/h2.py", archive_format=archive_format)
    assert str(caught.value) == (
        f"out/{output} already exists.\n"
        "Please specify --force/-f option to overwrite the model archive output file.\n"
        "See -h/--help for more details."
    )
    assert ("ERROR", str(caught.value)) in [(record.levelname, record.getMessage()) for record in caplog.records]
    assert Path("out", output).read_bytes() == first
    caplog.clear()
    pack("lib/h2.py", archive_format=archive_format, force=True)
    assert [record.getMessage() for record in caplog.records] == [f"Overwriting out/{output} ..."]
    assert Path("out", output).read_bytes() != first


def test_an_existing_archive_survives_a_failing_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pack()
    before = Path("out/m.mar").read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OSError, match="No space left"):
        pack("lib/h2.py", force=True)
    assert Path("out/m.mar").read_bytes() == before
    assert [path.name for path in Path("out").iterdir()] == ["m.mar"]


def test_the_archive_gets_the_permissions_of_an_ordinary_file(work: Path) -> None:
    pack()
    assert Path("out/m.mar").stat().st_mode == Path("h.py").stat().st_mode


@pytest.mark.parametrize("name", ["", "a b", "_m", "-m", ".m", "a/b", "../m", "m\n", "é"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ModelArchiverError) as caught:
        pack(model_name=name)
    assert str(caught.value) == (
        "Model name contains special characters.\n"
        r"The allowed regular expression filter for model name is: ^[A-Za-z0-9][A-Za-z0-9_\-.]*$"
    )


def test_a_missing_export_path_is_made(caplog: pytest.LogCaptureFixture) -> None:
    pack(export_path="new/er")
    assert members(Path("new/er/m.mar")) == ["h.py", "MAR-INF/MANIFEST.json"]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "Export directory (new/er) does not exist. Creating...")
    ]


def test_an_export_path_that_is_a_file() -> None:
    with pytest.raises(ModelArchiverError) as caught:
        pack(export_path="h.py")
    assert str(caught.value) == "Given export-path h.py is not a directory. Point to a valid export-path directory."


def test_values_that_the_command_line_would_refuse() -> None:
    with pytest.raises(ModelArchiverError, match=r"^Unknown archive format 'bogus', choose from tgz, "):
        pack(archive_format="bogus")
    with pytest.raises(ValueError, match="'go' is not a valid RuntimeType"):
        pack(runtime="go")
    assert list(Path("out").iterdir()) == []


def test_the_output_does_not_depend_on_the_order_of_the_directory(work: Path) -> None:
    names = [f"{number * 37 % 101:03}" for number in range(40)]
    for name in names:
        (work / "many" / name).mkdir(parents=True)
        (work / "many" / name / "x").touch()
        (work / "many" / f"{name}.txt").touch()
    pack("base_handler", extra_files="many")
    assert members()[:-1] == [f"{name}.txt" for name in sorted(names)] + [f"{name}/x" for name in sorted(names)]
