"""Directories and files that a start needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.checkup.places import examine_places
from modelserver.settings.command_line import parse
from modelserver.settings.loading import load


def lines(directory: Path, *flags: str, **environ: str) -> list[str]:
    arguments = parse(["--dt", *flags])
    return [str(finding) for finding in examine_places(load(arguments, environ, directory), arguments, directory)]


@pytest.fixture
def store(tmp_path: Path) -> str:
    (tmp_path / "store").mkdir()
    return "store"


def test_nothing_is_said_about_what_is_there(tmp_path: Path, store: str) -> None:
    assert lines(tmp_path, "--model-store", store) == []
    assert [path.name for path in tmp_path.iterdir()] == ["store"], "nothing is made"


def test_the_model_store(tmp_path: Path) -> None:
    (line,) = lines(tmp_path)
    assert line.startswith("ERROR model_store: Missing mandatory parameter --model-store. ")
    found = lines(tmp_path, "--model-store", "gone")
    assert found[0].startswith(
        f"ERROR command line --model-store: --model-store directory not found: {tmp_path}/gone. "
    )


def test_the_workflow_store(tmp_path: Path, store: str) -> None:
    """Named by the flag it must be there; named by the file it need not."""
    (line,) = lines(tmp_path, "--model-store", store, "--workflow-store", "gone")
    assert line.startswith("ERROR command line --workflow-store: --workflow-store directory not found: ")
    (tmp_path / "config.properties").write_text("workflow_store=gone\n")
    (line,) = lines(tmp_path, "--model-store", store)
    assert line.startswith("INFO config.properties:1: --workflow-store directory not found: ")
    (tmp_path / "config.properties").unlink()
    (tmp_path / "store" / "flow.war").touch()
    (line,) = lines(tmp_path, "--model-store", store)
    assert line.startswith("WARN key model_store: workflows are not served: flow.war. ")


def test_named_files(tmp_path: Path, store: str) -> None:
    for flag, text in (
        ("--log-config", "ERROR command line --log-config: --log-config file not found: "),
        ("--cpp-log-config", "ERROR command line --cpp-log-config: --cpp-log-config file not found: "),
    ):
        (line,) = lines(tmp_path, "--model-store", store, flag, "gone")
        assert line.startswith(text)


def test_directories_that_cannot_be_written_to(tmp_path: Path, store: str) -> None:
    """A file in the place of one stands for all reasons."""
    (tmp_path / "file").touch()
    flags = ("--model-store", store)
    (line,) = lines(tmp_path, *flags, TEMP=str(tmp_path / "file"))
    assert line.startswith(f"ERROR environment TEMP: the temporary directory cannot be written to: {tmp_path}/file. ")
    (line,) = lines(tmp_path, *flags, LOG_LOCATION="file/logs")
    assert line.startswith("WARN environment LOG_LOCATION: no log files: ")
    (tmp_path / "config.properties").write_text("log_to_files=false\n")
    assert lines(tmp_path, *flags, LOG_LOCATION="file/logs") == []
