"""What the nursery does with the run directory and the descriptor limit that its frontend gives it."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelserver.scratch import RunDirectory
from modelserver.wire import control
from modelserver.wire.control import Dismiss, Ready

ROOT = Path(__file__).parent.parent.parent
ENTRY = ROOT / "modelserver" / "worker" / "__main__.py"
DEADLINE = 60.0  # seconds


@contextmanager
def nursery(
    directory: Path, run_directory: Path, limit: int
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A nursery without torch that is ready, and the control socket; it has ended afterwards."""
    (directory / "torch.py").write_text("raise ImportError('torch is not installed')")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", str(ENTRY), "nursery", str(theirs.fileno()), str(limit), str(run_directory)],
            env={**os.environ, "PYTHONPATH": str(directory)},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    with process, ours:
        ours.settimeout(DEADLINE)
        assert isinstance(control.decode_from_nursery(ours.recv(control.PACKET_LIMIT)), Ready)
        yield process, ours
        ours.close()
        assert process.wait(DEADLINE) == 0


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """The run directory of a frontend that is dead."""
    code = "import sys; from pathlib import Path; from modelserver.scratch import RunDirectory\n"
    code += "print(RunDirectory.make(Path(sys.argv[1])).path)"
    command = [sys.executable, "-c", code, str(tmp_path / "temp")]
    return Path(subprocess.check_output(command, cwd=ROOT, text=True).strip())


def test_the_run_directory_of_a_killed_frontend_goes(tmp_path: Path, dead: Path) -> None:
    with nursery(tmp_path, dead, 64):
        assert dead.is_dir()
    assert not dead.exists()


def test_the_run_directory_of_a_frontend_that_ends_by_itself_is_its_own_business(tmp_path: Path) -> None:
    with RunDirectory.make(tmp_path / "temp") as run:
        with nursery(tmp_path, run.path, 64) as (_, link):
            link.send(control.encode(Dismiss()))
        assert run.path.is_dir()


def test_a_temporary_directory_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    with nursery(tmp_path, tmp_path / "gone" / "ms-0123456789abcdef", 64):
        pass


def test_the_soft_limit_is_the_one_it_is_told(tmp_path: Path, dead: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with nursery(tmp_path, dead, 77) as (process, _):
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (77, hard)
