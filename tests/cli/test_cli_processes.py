"""Background, foreground and stop, with a small program in the server's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelserver import pidfile

# Stands for the interpreter that the command runs the server with: writes down its arguments, and obeys SIGTERM.
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
pathlib.Path("started.json").write_text(json.dumps([os.getpid(), sys.argv[1:]]))
print("Model server started.", flush=True)
signal.pause()
"""
LAUNCHER = "import sys; sys.executable = sys.argv.pop(1); from modelserver.cli import main; main()"


class Terminal:
    """A directory, a temporary directory, and the commands given there; all write to one pipe."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pid_file = directory / ".model_server.pid"
        self._stand_in = directory / "python"
        self._stand_in.write_text(STAND_IN)
        self._stand_in.chmod(0o755)
        reader, self._writer = os.pipe()
        self.output = os.fdopen(reader)

    def launch(self, *flags: str) -> subprocess.Popen[bytes]:
        environ = {name: text for name, text in os.environ.items() if name not in ("TEMP", "TS_CONFIG_FILE")}
        return subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(self._stand_in), *flags],
            cwd=self.directory,
            env={**environ, "TMPDIR": str(self.directory)},
            stdout=self._writer,
        )

    def run(self, *flags: str) -> int:
        with self.launch(*flags) as process:
            return process.wait()

    def started(self) -> tuple[int, list[str]]:
        """Process id and arguments of the stand-in, once it says that it runs."""
        assert self.output.readline() == "Model server started.\n"
        pid, arguments = json.loads((self.directory / "started.json").read_text())
        return pid, arguments

    def close(self) -> None:
        server = pidfile.running_server(self.pid_file)
        if server is not None:
            os.kill(server, signal.SIGKILL)
        os.close(self._writer)
        self.output.close()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


def test_life_in_the_background(terminal: Terminal) -> None:
    flags = ("--start", "--model-store", ".", "--ncs", "--models", "a=a.mar", "b.mar")
    assert terminal.run(*flags) == 0
    pid, arguments = terminal.started()
    assert terminal.pid_file.read_text() == str(pid)
    assert arguments == ["-P", "-m", "modelserver.server", "org.pytorch.serve.ModelServer", *flags]

    assert terminal.run(*flags) == 1
    already = "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"
    assert terminal.output.readline() == already
    assert terminal.pid_file.read_text() == str(pid)

    (terminal.directory / "key_file.json").touch()
    assert terminal.run("--stop") == 0
    assert terminal.output.readline() == "TorchServe has stopped.\n"
    assert not terminal.pid_file.exists()
    assert not (terminal.directory / "key_file.json").exists()
    assert pidfile.wait_for_end(pid, 60)


def test_of_several_starts_at_once_one_is_the_server(terminal: Terminal) -> None:
    """Also where they have a pid file to replace."""
    pidfile.write(terminal.pid_file, os.getpid())
    launchers = [terminal.launch("--model-store", ".") for _ in range(4)]
    assert sorted(launcher.wait() for launcher in launchers) == [0, 1, 1, 1]
    already = "TorchServe is already running, please use torchserve --stop to stop TorchServe.\n"
    lines = sorted(terminal.output.readline() for _ in range(4))
    assert lines == ["Model server started.\n", *[already] * 3]
    pid, _ = json.loads((terminal.directory / "started.json").read_text())
    assert terminal.pid_file.read_text() == str(pid)


def test_stop_can_wait(terminal: Terminal) -> None:
    assert terminal.run("--model-store", ".") == 0
    pid, _ = terminal.started()
    assert terminal.run("--stop", "--foreground") == 0
    assert pidfile.wait_for_end(pid, 0)
    assert terminal.run("--stop") == 0
    assert terminal.output.readline() == "TorchServe is not currently running.\n"


def test_the_foreground_is_the_server(terminal: Terminal) -> None:
    with terminal.launch("--model-store", ".", "--foreground") as launcher:
        pid, arguments = terminal.started()
        assert pid == launcher.pid
        assert arguments[-3:] == ["--model-store", ".", "--foreground"]
        assert terminal.pid_file.read_text() == str(pid)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait() == 7
    assert terminal.run("--version") == 0
    assert terminal.output.readline() == "Removing orphan pid file.\n"


@pytest.mark.check("cli", 11)
def test_a_foreign_process_is_left_alone(terminal: Terminal) -> None:
    pidfile.write(terminal.pid_file, os.getpid())
    assert terminal.run("--stop") == 0
    assert terminal.output.readline() == "TorchServe is not currently running.\n"
    assert terminal.pid_file.exists()
    assert terminal.run("--model-store", ".") == 0
    pid, _ = terminal.started()
    assert terminal.pid_file.read_text() == str(pid)


def test_no_server_runs_without_a_pid_file(terminal: Terminal) -> None:
    terminal.pid_file.symlink_to("nowhere")
    assert terminal.run("--model-store", ".") == 1
    refusal = f"Cannot start the server: [Errno 40] Too many levels of symbolic links: '{terminal.pid_file}'\n"
    lines = iter(terminal.output.readline, refusal)
    assert set(lines) <= {"Model server started.\n"}
    assert not terminal.pid_file.exists()
