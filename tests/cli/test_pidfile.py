"""Whom a pid file names."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modelserver import pidfile


def finished() -> subprocess.Popen[bytes]:
    """A process that has ended and was not waited for."""
    process = subprocess.Popen([sys.executable, "-c", "pass", pidfile.MARKER])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pid"


def test_no_file(path: Path) -> None:
    assert pidfile.running_server(path) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"abc", b"-1", b"0", b"1 2", b"\xff", b"9" * 400, "\u0661".encode()])
def test_unreadable_content_is_an_orphan(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(pidfile.OrphanPidFile):
        pidfile.running_server(path)


def test_another_program_is_no_server(path: Path) -> None:
    pidfile.write(path, os.getpid())
    assert pidfile.running_server(path) is None


def test_marker_must_be_a_whole_argument(path: Path) -> None:
    for argument, is_server in ((pidfile.MARKER, True), (f"x{pidfile.MARKER}", False)):
        with subprocess.Popen([sys.executable, "-c", "input()", argument], stdin=subprocess.PIPE) as process:
            pidfile.write(path, process.pid)
            assert pidfile.running_server(path) == (process.pid if is_server else None)
            assert process.stdin is not None
            process.stdin.write(b"\n")


def test_zombies_and_the_dead_are_orphans(path: Path) -> None:
    process = finished()
    pidfile.write(path, process.pid)
    with pytest.raises(pidfile.OrphanPidFile):
        pidfile.running_server(path)
    assert pidfile.wait_for_end(process.pid, 60)
    process.wait()
    with pytest.raises(pidfile.OrphanPidFile):
        pidfile.running_server(path)
    assert pidfile.wait_for_end(process.pid, 60)


def test_waiting_has_a_limit() -> None:
    assert not pidfile.wait_for_end(os.getpid(), 0)


def test_content_is_the_bare_number(path: Path) -> None:
    pidfile.write(path, 1234567)
    pidfile.write(path, 89)
    assert path.read_bytes() == b"89"
    assert path.stat().st_mode & 0o133 == 0


def test_links_are_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        pidfile.write(path, 1)
    assert not (tmp_path / "victim").exists()


def enter(path: Path) -> None:
    with pidfile.alone(path):
        pass


def test_who_wants_to_be_alone_waits_for_the_other(path: Path) -> None:
    other = os.open(path.parent, os.O_RDONLY)
    with pidfile.alone(path), pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    waiting = threading.Thread(target=enter, args=[path])
    waiting.start()
    assert waiting.is_alive()
    os.close(other)
    waiting.join()


def test_a_lock_that_somebody_keeps_stops_nobody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pidfile, "_PATIENCE", 0.1)
    with pidfile.alone(path), pidfile.alone(path):
        pass
    with pidfile.alone(path / "missing" / "pid"):
        pass


def test_location_is_the_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert pidfile.location() == tmp_path / ".model_server.pid"
