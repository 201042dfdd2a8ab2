"""The names that scripts import, and what they do."""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import model_archiver
from model_archiver import ModelArchiverConfig
from model_archiver.arg_parser import ArgParser
from model_archiver.manifest_components.manifest import Manifest, RuntimeType
from model_archiver.manifest_components.model import Model
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.model_packaging import generate_model_archive, package_model
from model_archiver.model_packaging_utils import (
    MANIFEST_FILE_NAME,
    MAR_INF,
    MODEL_ARCHIVE_VERSION,
    MODEL_SERVER_VERSION,
    ModelExportUtils,
    archiving_options,
    model_handlers,
)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "h.py").write_text("handler")
    (tmp_path / "req.txt").write_text("numpy")
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "b").write_text("b")
    return tmp_path


def test_constants() -> None:
    assert model_archiver.__version__ == "0.12.0"
    assert (MAR_INF, MANIFEST_FILE_NAME) == ("MAR-INF", "MANIFEST.json")
    assert (MODEL_SERVER_VERSION, MODEL_ARCHIVE_VERSION) == ("1.0", "1.0")
    assert archiving_options == {"tgz": ".tar.gz", "no-archive": "", "zip-store": ".mar", "default": ".mar"}
    assert model_handlers["base_handler"] == "anything"
    assert ModelArchiverError.__bases__ == (Exception,)
    assert {runtime.name: runtime.value for runtime in RuntimeType} == {
        "PYTHON": "python",
        "PYTHON3": "python3",
        "LSP": "LSP",
    }


def test_modules_are_there_once_the_package_is_imported() -> None:
    code = """
import model_archiver as m
print(m.model_packaging.ModelExportUtils.__name__, m.model_packaging_utils.MAR_INF)
print(m.model_archiver_error.ModelArchiverError.__name__, m.arg_parser.ArgParser.__name__, hasattr(m, "absent"))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (
        0,
        ["ModelExportUtils", "MAR-INF", "ModelArchiverError", "ArgParser", "False"],
    ), done.stderr


def test_the_config_takes_arguments_in_the_known_order() -> None:
    assert list(inspect.signature(ModelArchiverConfig).parameters) == [
        "model_name",
        "handler",
        "version",
        "serialized_file",
        "model_file",
        "extra_files",
        "runtime",
        "export_path",
        "archive_format",
        "force",
        "requirements_file",
        "config_file",
    ]
    with pytest.raises(TypeError):
        ModelArchiverConfig("m", "h.py")  # type: ignore[call-arg]


def test_a_config_from_a_namespace() -> None:
    config = ModelArchiverConfig("m", "h.py", "1", export_path="out", force=True)
    assert ModelArchiverConfig.from_args(argparse.Namespace(**vars(config), unknown=1)) == config


def test_the_model_member() -> None:
    model = Model("n", "a/w.pt", "x/h.py", "y/m.py", "1", {"a": 1}, "q/r.txt", "c/c.yaml")
    members = {
        "modelName": "n",
        "serializedFile": "w.pt",
        "handler": "h.py",
        "modelFile": "m.py",
        "modelVersion": "1",
        "extensions": {"a": 1},
        "requirementsFile": "r.txt",
        "configFile": "c.yaml",
    }
    assert model.model_dict == members
    assert str(model) == repr(model) == json.dumps(members)
    assert Model("n", None, "h").model_dict == {"modelName": "n", "handler": "h"}


def test_the_manifest() -> None:
    manifest = Manifest("python3", Model("n", None, "h"))
    assert manifest.runtime is RuntimeType.PYTHON3
    assert manifest.manifest_dict == {
        "createdOn": manifest.creation_time,
        "runtime": "python3",
        "model": {"modelName": "n", "handler": "h"},
        "archiverVersion": manifest.archiver_version,
    }
    assert str(manifest) == repr(manifest) == json.dumps(manifest.manifest_dict, indent=2)
    with pytest.raises(ValueError, match="'go' is not a valid RuntimeType"):
        Manifest("go", Model("n", None, "h"))


def test_the_arguments_come_from_the_patched_parser(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelArchiverConfig("m", "h.py", "1", export_path=str(work))
    monkeypatch.setattr(ArgParser, "export_model_args_parser", staticmethod(lambda: config))
    generate_model_archive()
    assert (work / "m.mar").exists()


def test_the_parser_reads_the_command_line(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "x --model-name m --handler h.py -v 2 -f -r r.txt -c c.yaml --export-path out"
    monkeypatch.setattr(sys, "argv", line.split())
    assert ArgParser.export_model_args_parser() == ModelArchiverConfig(
        "m", "h.py", "2", export_path="out", force=True, requirements_file="r.txt", config_file="c.yaml"
    )


def test_a_manifest_of_the_caller_is_packed_as_it_is(work: Path) -> None:
    package_model(ModelArchiverConfig("m", "h.py", "1", export_path=str(work)), "any text")
    with zipfile.ZipFile(work / "m.mar") as archive:
        assert archive.read("MAR-INF/MANIFEST.json") == b"any text"


def test_finding_one_file() -> None:
    assert ModelExportUtils.find_unique(["a.pt", "b.py"], ".pt") == "a.pt"
    assert ModelExportUtils.find_unique([], ".pt") is None
    with pytest.raises(ModelArchiverError, match=r"expects only one \.pt file"):
        ModelExportUtils.find_unique(["a.pt", "b.pt"], ".pt")


def test_filters() -> None:
    for name in ("MANIFEST.json", "x.pyc", ".DS_Store", "x.mar", "given"):
        assert not ModelExportUtils.file_filter(name, {"given"})
    assert ModelExportUtils.file_filter("h.py", set())
    for name in (".hid", "__pycache__", "__MACOSX", "given"):
        assert not ModelExportUtils.directory_filter(name, {"given"})
    assert ModelExportUtils.directory_filter("sub", set())


def test_output_names(work: Path) -> None:
    assert ModelExportUtils.get_archive_export_path("/x", "m", "tgz") == "/x/m.tar.gz"
    assert ModelExportUtils.get_archive_export_path("/x", "m", "no-archive") == "/x/m"
    assert ModelExportUtils.check_mar_already_exists("m", None, False) == str(work)
    assert ModelExportUtils.check_mar_already_exists("m", "out", False) == "out"


def test_artifacts_are_gathered_in_a_private_directory(work: Path) -> None:
    artifacts = {"handler": "h.py", "requirements-file": "req.txt", "model_file": None, "extra_files": "tree"}
    first, second = (Path(ModelExportUtils.copy_artifacts("m", "python", **artifacts)) for _ in range(2))
    assert first != second
    assert sorted(path.name for path in first.iterdir()) == ["h.py", "req.txt", "sub"]
    assert (first / "h.py").read_text() == "handler"
    ModelExportUtils.clean_temp_files([str(first), str(second)])
    assert not first.exists() and not second.exists()
    assert (work / "h.py").exists()


def test_a_directory_is_archived(work: Path) -> None:
    ModelExportUtils.make_dir("out/deep")
    ModelExportUtils.make_dir("out/deep")
    ModelExportUtils.archive("out/deep", "m", "tree", "{}")
    with zipfile.ZipFile("out/deep/m.mar") as archive:
        assert archive.namelist() == ["sub/b", "MAR-INF/MANIFEST.json"]


def test_a_directory_is_added_to_an_open_archive(work: Path) -> None:
    with zipfile.ZipFile("x.mar", "w") as mar:
        ModelExportUtils.archive_dir("tree", mar, "default", "m")
        assert mar.namelist() == ["sub/b"]
    with tarfile.open("x.tar.gz", "w:gz") as tar:
        ModelExportUtils.archive_dir("tree", tar, "tgz", "m")
        assert tar.getnames() == ["m/sub/b"]
    ModelExportUtils.archive_dir("tree", "folder", "no-archive", "m")
    assert Path("folder/sub/b").read_text() == "b"


def test_files_and_trees_are_cleaned(work: Path) -> None:
    ModelExportUtils.clean_temp_files(["h.py", "tree"])
    assert not Path("h.py").exists() and not Path("tree").exists()
