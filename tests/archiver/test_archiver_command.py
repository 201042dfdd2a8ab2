"""`torch-model-archiver` as a process: exit statuses, standard error, help."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ARCHIVER = Path(__file__).parents[2] / "archiver"
check = pytest.mark.check


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "h.py").write_text("handler")
    return tmp_path


def run(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model_archiver.model_packaging", *arguments],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(ARCHIVER), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def test_success_is_silent(work: Path) -> None:
    done = run(work, "--model-name", "m", "-v", "1.0", "--handler", "h.py")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with zipfile.ZipFile(work / "m.mar") as archive:
        assert archive.namelist() == ["h.py", "MAR-INF/MANIFEST.json"]


def test_long_flags_may_be_abbreviated(work: Path) -> None:
    line = "--model-n m --vers 1 --hand h --archive-f tgz --run python3 --export o"
    done = run(work, *line.split())
    assert (done.returncode, done.stderr) == (0, "WARNING - Export directory (o) does not exist. Creating...\n")
    assert (work / "o" / "m.tar.gz").exists()


@check("archive", 1)
def test_help(work: Path) -> None:
    done = run(work, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: torch-model-archiver [-h] --model-name MODEL_NAME ")
    for flag in ("-v VERSION, --version VERSION", "-f, --force", "-r REQUIREMENTS_FILE", "-c CONFIG_FILE"):
        assert flag in done.stdout


@check("archive", 1)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --model-name, --handler, -v/--version"),
        (
            ["--model-name", "m", "-v", "1", "--handler", "h.py", "--runtime", "go"],
            "argument --runtime: invalid choice: go (choose from python, python3, LSP)",
        ),
        (
            ["--model-name", "m", "-v", "1", "--handler", "h.py", "--archive-format", "war"],
            "argument --archive-format: invalid choice: war (choose from tgz, no-archive, zip-store, default)",
        ),
    ],
)
def test_wrong_arguments(work: Path, arguments: list[str], message: str) -> None:
    done = run(work, *arguments)
    assert done.returncode == 2
    # Python 3.14 dropped the quotes around choices.
    assert done.stderr.splitlines()[-1].replace("'", "") == f"torch-model-archiver: error: {message}"


@check("archive", 5)
def test_overwriting(work: Path) -> None:
    arguments = ["--model-name", "m", "-v", "1.0", "--handler", "h.py", "--export-path", str(work)]
    assert run(work, *arguments).returncode == 0
    again = run(work, *arguments)
    assert again.returncode == 1
    assert again.stderr.startswith(
        f"ERROR - {work}/m.mar already exists.\n"
        "Please specify --force/-f option to overwrite the model archive output file.\n"
        "See -h/--help for more details.\n"
        "Traceback (most recent call last):\n"
    )
    forced = run(work, *arguments, "-f")
    assert (forced.returncode, forced.stderr) == (0, f"WARNING - Overwriting {work}/m.mar ...\n")


@check("archive", 7)
def test_a_missing_extra_file(work: Path) -> None:
    done = run(work, "--model-name", "m", "-v", "1.0", "--handler", "h.py", "--extra-files", "nope")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "FileNotFoundError: File does not exist: nope"
