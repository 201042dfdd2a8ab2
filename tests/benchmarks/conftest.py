"""A stand-in for TorchServe, and archives for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.archives import Archives
from benchmarks.servers import RestServer


@pytest.fixture
def archives(tmp_path: Path) -> Archives:
    return Archives(tmp_path / "store")


@pytest.fixture
def standin_program(tmp_path: Path) -> Path:
    source = Path(__file__).with_name("rest_standin.py")
    path = tmp_path / "standin"
    path.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({str(source)!r}, run_name='__main__')\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def standin(tmp_path: Path, standin_program: Path, archives: Archives) -> Iterator[RestServer]:
    server = RestServer(standin_program, archives, tmp_path / "run")
    yield server
    server.stop()
