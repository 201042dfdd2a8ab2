"""`--show-config`: what a server would run with, and nothing starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import MODELSERVER
from modelserver import pidfile


class Desk:
    """A directory to call the command in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.program = MODELSERVER

    def call(self, *flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
        variables = {name: text for name, text in os.environ.items() if name not in ("TEMP", "TS_CONFIG_FILE")}
        return subprocess.run(
            [str(self.program), *flags],
            cwd=self.directory,
            env={**variables, "TMPDIR": str(self.directory), **environ},
            capture_output=True,
            text=True,
        )


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    before = set(tmp_path.iterdir())
    yield desk
    left = {path.name for path in set(tmp_path.iterdir()) - before}
    assert left <= {"config.properties", ".model_server.pid"}, "it makes nothing"


@pytest.mark.parametrize("name", ["modelserver", "torchserve"])
def test_value_and_source_of_every_setting(desk: Desk, name: str) -> None:
    desk.program = MODELSERVER.with_name(name)
    (desk.directory / "config.properties").write_text("job_queue_size=7\nenable_envvars_config=true\nvmargs=-Xmx1g\n")
    done = desk.call("--show-config", "--models", "a.mar", TS_DRAIN_TIMEOUT="3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "job_queue_size=7  (config.properties:1)" in lines
    assert "drain_timeout=3  (environment TS_DRAIN_TIMEOUT)" in lines
    assert "load_models=a.mar  (command line --models)" in lines
    assert lines[0] == "inference_address=http://127.0.0.1:8080  (default)"


@pytest.mark.parametrize("flags", [("--show-config", "json"), ("--show-config=json", "--foreground", "--start")])
def test_json(desk: Desk, flags: tuple[str, ...]) -> None:
    done = desk.call(*flags)
    assert done.returncode == 0
    assert json.loads(done.stdout)["settings"]["job_queue_size"] == {"value": 100, "source": "default"}


def test_what_would_stop_a_start_is_said(desk: Desk) -> None:
    (desk.directory / "config.properties").write_text("job_queue_size=many\n")
    done = desk.call("--show-config", "json")
    assert done.returncode == 1
    assert done.stdout == (
        'Invalid configuration: For input string: "many" (job_queue_size, config.properties:1): '
        "expected an integer from 1\n"
    )
    assert desk.call("--show-config", "--ts-config", "gone").stdout == (
        "Invalid configuration: --ts-config file not found: gone\n"
    )


def test_a_running_server_does_not_matter(desk: Desk) -> None:
    """Nor does a pid file, which is left as it is: the output is the settings alone."""
    path = desk.directory / ".model_server.pid"
    path.write_text("no number")
    assert desk.call("--show-config", "json").stdout.startswith("{")
    assert path.read_text() == "no number"
    with subprocess.Popen([sys.executable, "-c", "input()", pidfile.MARKER], stdin=subprocess.PIPE) as running:
        path.write_text(str(running.pid))
        assert desk.call("--show-config").returncode == 0
        assert running.poll() is None
        running.communicate(b"\n")


def test_other_actions_go_before(desk: Desk) -> None:
    assert desk.call("--stop", "--show-config").stdout == "TorchServe is not currently running.\n"
    assert desk.call("--version", "--show-config").stdout.startswith("TorchServe Version is ")


def test_a_reader_may_leave_early(desk: Desk) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [MODELSERVER, "--show-config"], cwd=desk.directory, stdout=stdout, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_form_is_misuse(desk: Desk) -> None:
    done = desk.call("--show-config", "xml")
    assert done.returncode == 2
    assert "argument --show-config: invalid choice: 'xml'" in done.stderr


def test_nothing_heavy_is_imported(desk: Desk) -> None:
    code = """if True:
        import sys
        from modelserver.cli import main
        try:
            main(["--show-config", "json"])
        except SystemExit as ended:
            assert ended.code == 0
        heavy = {"torch", "numpy", "uvicorn", "uvloop", "asyncio", "msgspec", "psutil", "yaml"} & sys.modules.keys()
        sys.exit(f"imported {heavy}" if heavy else 0)
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=desk.directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
