"""`torch-workflow-archiver`: what it packs, what it refuses, and the names that scripts import."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path

import pytest

import workflow_archiver
from workflow_archiver.manifest_components.manifest import Manifest
from workflow_archiver.manifest_components.workflow import Workflow
from workflow_archiver.workflow_archiver_error import WorkflowArchiverError
from workflow_archiver.workflow_packaging import package_workflow
from workflow_archiver.workflow_packaging_utils import MANIFEST_FILE_NAME, WAR_INF, WorkflowExportUtils

ARCHIVER = Path(__file__).parents[2] / "archiver"
PLAIN = ("--workflow-name", "w", "--spec-file", "conf/s.yaml", "--handler", "h.py", "--export-path", "out")
check = pytest.mark.check


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a temporary directory of its own beside it."""
    directory = tmp_path / "work"
    (directory / "conf").mkdir(parents=True)
    (directory / "out").mkdir()
    (directory / "conf" / "s.yaml").write_text("models: {m1: {url: a.mar}}\ndag: {pre: [m1], m1: []}\n")
    (directory / "models.yaml").write_text(
        "models: {min-workers: 1, m1: {url: a.mar}, m2: {url: b.mar}}\ndag: {m1: [m2]}\n"
    )
    (directory / "h.py").write_text("handler")
    (directory / "data.txt").write_text("data")
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temp"))
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def temp(tmp_path: Path) -> Path:
    """The temporary directory of the archiver."""
    return tmp_path / "temp"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workflow_archiver.workflow_packaging", *arguments],
        env=os.environ | {"PYTHONPATH": str(ARCHIVER), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def members(path: str = "out/w.war") -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def manifest(path: str = "out/w.war") -> str:
    with zipfile.ZipFile(path) as archive:
        return archive.read("WAR-INF/MANIFEST.json").decode("ascii")


@check("workflow", 1)
@check("archive", 19)
def test_a_workflow_is_packed_flat_with_its_manifest_last(temp: Path) -> None:
    done = run(*PLAIN, "--extra-files", "data.txt, h.py,")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert members() == ["data.txt", "h.py", "s.yaml", "WAR-INF/MANIFEST.json"]
    created = json.loads(manifest())["createdOn"]
    assert datetime.strptime(created, "%d/%m/%Y %H:%M:%S")
    assert manifest() == (
        "{\n"
        f'  "createdOn": "{created}",\n'
        '  "workflow": {\n'
        '    "workflowName": "w",\n'
        '    "specFile": "s.yaml",\n'
        '    "handler": "h.py"\n'
        "  },\n"
        '  "archiverVersion": "0.2.15"\n'
        "}"
    )
    assert list(temp.iterdir()) == []


@check("workflow", 2)
@check("archive", 19)
def test_overwriting_a_workflow_needs_force() -> None:
    assert run(*PLAIN).returncode == 0
    again = run(*PLAIN)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == (
        "ERROR - out/w.war already exists.\n"
        "Please specify --force/-f option to overwrite the workflow archive output file.\n"
        "See -h/--help for more details.\n"
    )
    forced = run(*PLAIN, "-f")
    assert (forced.returncode, forced.stderr) == (0, "WARNING - Overwriting out/w.war ...\n")


@check("archive", 19)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("--workflow-name", "w w"),
            "ERROR - Workflow name contains special characters.\n"
            "The allowed regular expression filter for workflow name is: ^[A-Za-z0-9][A-Za-z0-9_\\-.]*$\n",
        ),
        (
            ("--export-path", "absent"),
            "ERROR - Given export-path absent is not a directory. Point to a valid export-path directory.\n",
        ),
    ],
)
def test_wrong_names_and_places(changes: tuple[str, ...], message: str) -> None:
    done = run(*PLAIN, *changes)
    assert (done.returncode, done.stderr) == (1, message)
    assert not Path("absent").exists()


def test_flags_of_the_workflow_archiver() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith(
        "usage: torch-workflow-archiver [-h] --workflow-name WORKFLOW_NAME --spec-file SPEC_FILE [--handler HANDLER]"
    )
    missing = run()
    assert missing.returncode == 2
    assert missing.stderr.endswith("the following arguments are required: --workflow-name, --spec-file\n")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (("--spec-file", "absent.yaml"), "FileNotFoundError: [Errno 2] No such file or directory: 'absent.yaml'"),
        (("--handler", "h:fn"), "FileNotFoundError: [Errno 2] No such file or directory: 'h:fn'"),
        (("--extra-files", "absent"), "FileNotFoundError: [Errno 2] No such file or directory: 'absent'"),
        (("--extra-files", "conf"), "IsADirectoryError: [Errno 21] Is a directory: 'conf'"),
    ],
)
def test_files_that_cannot_be_packed(temp: Path, changes: tuple[str, ...], error: str) -> None:
    assert run(*PLAIN).returncode == 0
    before = Path("out/w.war").read_bytes()
    done = run(*PLAIN, "-f", *changes)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, error)
    assert Path("out/w.war").read_bytes() == before, "the archive that was there is still whole"
    assert list(temp.iterdir()) == []


def test_a_workflow_of_models_needs_no_handler() -> None:
    done = run("--workflow-name", "w", "--spec-file", "models.yaml", "--export-path", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert members() == ["models.yaml", "WAR-INF/MANIFEST.json"]
    assert json.loads(manifest())["workflow"]["handler"] == ""


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "models: {m1: {url: a.mar}}\ndag: {pre: [m1], m1: [null, post]}",
            "that are no models need a handler: post, pre.",
        ),
        ("dag: {a: [b]}", "it needs the mappings models and dag."),
        ("models: [", "is not YAML: "),
        ("", "it needs the mappings models and dag."),
    ],
)
def test_a_workflow_with_functions_needs_a_handler(spec: str, message: str) -> None:
    Path("conf/s.yaml").write_text(spec)
    done = run("--workflow-name", "w", "--spec-file", "conf/s.yaml", "--export-path", "out")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("out/w.war").exists()


def test_a_folder_named_like_the_workflow_is_left_alone(temp: Path) -> None:
    (temp / "w").mkdir()
    (temp / "w" / "keep").write_text("of a user")
    assert run(*PLAIN).returncode == 0
    assert (temp / "w" / "keep").exists()


def test_names_that_scripts_import() -> None:
    assert workflow_archiver.__version__ == "0.2.15"
    assert (WAR_INF, MANIFEST_FILE_NAME) == ("WAR-INF", "MANIFEST.json")
    assert WorkflowArchiverError.__bases__ == (Exception,)
    workflow = Workflow("n", "a/s.yaml", "b/h.py")
    assert workflow.workflow_dict == {"workflowName": "n", "specFile": "s.yaml", "handler": "h.py"}
    assert str(workflow) == repr(workflow) == json.dumps(workflow.workflow_dict)
    made = Manifest(workflow)
    assert made.manifest_dict == {
        "createdOn": made.creation_time,
        "workflow": workflow.workflow_dict,
        "archiverVersion": "0.2.15",
    }
    assert str(made) == repr(made) == json.dumps(made.manifest_dict, indent=2)


def test_a_manifest_of_the_caller() -> None:
    arguments = argparse.Namespace(
        workflow_name="w", spec_file="conf/s.yaml", handler="h.py", export_path="out", force=False, extra_files=None
    )
    package_workflow(arguments, "any text")
    assert manifest() == "any text"
    with pytest.raises(SystemExit) as ended:
        package_workflow(arguments, "any text")
    assert ended.value.code == 1


def test_the_steps_of_packing() -> None:
    tree = WorkflowExportUtils.copy_artifacts("w", ["conf/s.yaml", "h.py"])
    assert sorted(path.name for path in Path(tree).iterdir()) == ["h.py", "s.yaml"]
    WorkflowExportUtils.archive("out", "w", tree, "{}")
    assert members() == ["h.py", "s.yaml", "WAR-INF/MANIFEST.json"]
    with zipfile.ZipFile("x.war", "w") as war:
        WorkflowExportUtils.archive_dir(tree, war)
        assert war.namelist() == ["h.py", "s.yaml"]
    WorkflowExportUtils.clean_temp_files([tree])
    assert not Path(tree).exists()
    WorkflowExportUtils.make_dir("deep/er")
    assert Path("deep/er").is_dir()
    assert WorkflowExportUtils.check_war_already_exists("new", None, False) == str(Path.cwd())
    assert not WorkflowExportUtils.file_filter("a.war", set())
    assert WorkflowExportUtils.file_filter("h.py", set())
    assert not WorkflowExportUtils.directory_filter(".hid", set())
