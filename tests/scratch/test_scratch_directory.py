"""Run directories: locked while their server lives, removed with what they claim afterwards, and nothing else ever."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from modelserver.scratch import RunDirectory, remove_dead, sweep

ROOT = Path(__file__).parent.parent.parent


def die(code: str, *arguments: object) -> str:
    """What a process prints that runs `code`, a server's work in a few lines, and is then killed."""
    script = "import os, signal, sys\nfrom pathlib import Path\nfrom modelserver.scratch import RunDirectory\n" + code
    script += "\nsys.stdout.flush()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == -9
    return done.stdout.strip()


def leave_dead(temp: Path) -> Path:
    """The run directory of a server that was killed."""
    return Path(die("print(RunDirectory.make(Path(sys.argv[1])).path)", temp))


def leave_dead_with_model(temp: Path, models: Path) -> tuple[Path, Path]:
    """(run directory, model directory) of a killed server."""
    code = """
run = RunDirectory.make(Path(sys.argv[1]))
models = Path(sys.argv[2])
model = models / run.claim(models)
(model / "deep").mkdir(parents=True)
(model / "deep" / "weights").write_text("w")
print(run.path, model)
"""
    run, model = die(code, temp, models).split()
    return Path(run), Path(model)


def claim_of(run: Path) -> Path:
    (claim,) = (run / "claims").iterdir()
    return claim


# The life of one.


def test_private_and_gone_at_the_end(tmp_path: Path) -> None:
    temp = tmp_path / "not" / "there"
    with RunDirectory.make(temp) as run:
        assert run.path.parent == temp
        assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
        (run.path / "w").touch()
    assert list(temp.iterdir()) == []


def test_a_socket_path_that_would_be_too_long_moves_it_to_the_system_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    with RunDirectory.make(deep) as run:
        assert run.path.parent == Path("/tmp")
        assert len(os.fsencode(run.path / "w")) < 108
        assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
        assert list(deep.iterdir()) == []
    assert not run.path.exists()


def test_a_directory_reached_by_a_link_is_named_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with RunDirectory.make(tmp_path / "link") as run:
        assert run.path.parent == tmp_path / "real"


def test_what_is_still_claimed_at_the_end_goes_too(tmp_path: Path) -> None:
    models = tmp_path / "models"
    with RunDirectory.make(tmp_path) as run:
        staging = models / f"{run.claim(models)}.download"
        staging.mkdir(parents=True)
        released = run.claim(models)
        run.release(released)
        run.release(released)  # does nothing
        (models / released).mkdir()
    assert list(models.iterdir()) == [models / released]


def test_no_child_holds_the_lock(tmp_path: Path) -> None:
    """A process that outlives its server must not keep the directory alive."""
    code = """
import subprocess
run = RunDirectory.make(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "600"], close_fds=False, stdout=subprocess.DEVNULL)
print(run.path, child.pid)
"""
    path, pid = die(code, tmp_path).split()
    try:
        assert sweep(tmp_path) == [Path(path)]
    finally:
        os.kill(int(pid), 9)


# Sweeping.


def test_a_dead_server_s_directory_goes_with_everything_it_claims(tmp_path: Path) -> None:
    models = tmp_path / "temp" / "models"
    run, model = leave_dead_with_model(tmp_path / "temp", models)
    stranger = models / "0123456789abcdef0123456789abcdef"
    stranger.mkdir()
    (models / f".{model.name}.part").touch()
    (models / f"{model.name}.download").mkdir()
    (run / "w").touch()
    assert sweep(tmp_path / "temp") == [run]
    assert list(models.iterdir()) == [stranger]
    assert list((tmp_path / "temp").iterdir()) == [models]


def test_a_living_server_s_directory_is_untouched(tmp_path: Path) -> None:
    with RunDirectory.make(tmp_path) as one, RunDirectory.make(tmp_path) as other:
        models = tmp_path / "models"
        model = models / one.claim(models)
        model.mkdir(parents=True)
        assert sweep(tmp_path) == []
        assert model.is_dir()
        assert (one.path / "claims" / model.name).is_symlink()
        assert other.path.is_dir()
        assert not remove_dead(one.path, patience=0.05)


def test_a_server_that_is_being_killed_is_waited_for(tmp_path: Path) -> None:
    path = leave_dead(tmp_path)
    holder = os.open(path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    outcome: list[bool] = []
    waiting = threading.Thread(target=lambda: outcome.append(remove_dead(path, patience=60)))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive() and path.exists()
    os.close(holder)
    waiting.join(60)
    assert outcome == [True]
    assert not path.exists()


def test_only_the_link_to_a_model_directory_goes(tmp_path: Path) -> None:
    operators = tmp_path / "operators"
    operators.mkdir()
    (operators / "weights").touch()
    models = tmp_path / "models"
    _, model = leave_dead_with_model(tmp_path, models)
    (model / "linked").symlink_to(operators)
    (models / f"{model.name}.link").symlink_to(operators)
    sweep(tmp_path)
    assert list(models.iterdir()) == []
    assert (operators / "weights").exists()


def test_one_killed_before_it_was_locked_is_empty_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "ms-0123456789abcdef"
    path.mkdir(mode=0o700)
    assert sweep(tmp_path) == [path]
    assert not path.exists()


@pytest.mark.parametrize("folder", ["models", "../models", "TEMP/x/../models", "/nowhere/at/all"])
def test_a_claim_that_is_no_plain_absolute_path_removes_nothing(tmp_path: Path, folder: str) -> None:
    name = "b" * 32
    inside = tmp_path / "temp" / "models" / name
    inside.mkdir(parents=True)
    path = leave_dead(tmp_path / "temp")
    (path / "claims" / name).symlink_to(folder.replace("TEMP", str(tmp_path / "temp")))
    assert sweep(tmp_path / "temp") == [path]
    assert inside.is_dir()


@pytest.mark.parametrize("name", ["a", "precious", "A" * 32, "b" * 31, "b" * 33])
def test_names_that_are_no_claims_are_not_believed(tmp_path: Path, name: str) -> None:
    """Only a name of our own making tells what may be removed."""
    model = tmp_path / "models" / f"a-precious-model-{name}"
    model.mkdir(parents=True)
    path = leave_dead(tmp_path)
    (path / "claims" / name).symlink_to(tmp_path / "models")
    assert sweep(tmp_path) == []
    assert model.is_dir()


def test_a_linked_record_is_not_followed(tmp_path: Path) -> None:
    run, model = leave_dead_with_model(tmp_path, tmp_path / "models")
    (run / "claims").rename(tmp_path / "elsewhere")
    (run / "claims").symlink_to(tmp_path / "elsewhere")
    sweep(tmp_path)
    assert model.is_dir()


def test_a_linked_run_directory_is_not_followed(tmp_path: Path) -> None:
    elsewhere, temp = tmp_path / "elsewhere", tmp_path / "temp"
    temp.mkdir()
    run, model = leave_dead_with_model(elsewhere, elsewhere)
    (temp / run.name).symlink_to(run)
    assert sweep(temp) == []
    assert (temp / run.name).is_symlink()
    assert model.is_dir()


@pytest.mark.parametrize(
    "name", ["ms-playwright", "ms-0123456789abcde", "ms-0123456789abcdef0", "Xms-0123456789abcdef"]
)
def test_other_names_are_not_ours(tmp_path: Path, name: str) -> None:
    path = leave_dead(tmp_path).rename(tmp_path / name)
    assert sweep(tmp_path) == []
    assert path.is_dir()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o500])
def test_directories_that_others_may_enter_are_not_ours(tmp_path: Path, mode: int) -> None:
    path = leave_dead(tmp_path)
    path.chmod(mode)
    assert sweep(tmp_path) == []
    assert path.is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_user_s_are_not_ours(tmp_path: Path) -> None:
    run, model = leave_dead_with_model(tmp_path, tmp_path / "models")
    os.chown(run, 12345, -1)
    assert sweep(tmp_path) == []
    assert model.is_dir()
    os.chown(run, 0, -1)
    os.chown(model, 12345, -1)
    assert sweep(tmp_path) == []
    assert model.is_dir()
    assert claim_of(run).name == model.name
    os.chown(model, 0, -1)
    assert sweep(tmp_path) == [run]
    assert not model.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_cannot_go_yet_is_waited_for(tmp_path: Path) -> None:
    """A program of the dead server may still write there; meanwhile it belongs to another user here."""
    run, model = leave_dead_with_model(tmp_path, tmp_path / "models")
    outcome: list[bool] = []
    removing = threading.Thread(target=lambda: outcome.append(remove_dead(run, patience=60)))
    os.chown(model, 12345, -1)
    removing.start()
    removing.join(0.1)
    assert removing.is_alive()
    assert claim_of(run).name == model.name
    os.chown(model, 0, -1)
    removing.join(60)
    assert outcome == [True]
    assert not model.exists() and not run.exists()


def test_nothing_to_sweep(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "ms-0123456789abcdef").touch()
    assert sweep(tmp_path) == []
    assert sweep(tmp_path / "file") == []
    assert sweep(tmp_path / "gone") == []
    assert not remove_dead(tmp_path / "gone" / "ms-0123456789abcdef", patience=60)


def test_its_temporary_directory_may_be_gone_at_the_end(tmp_path: Path) -> None:
    with RunDirectory.make(tmp_path / "temp") as run:
        shutil.rmtree(tmp_path / "temp")
        with pytest.raises(FileNotFoundError):
            run.claim(tmp_path)


def test_claims_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RunDirectory.make(Path("temp")) as run:
        run.claim(Path("models"))
        assert claim_of(run.path).readlink() == tmp_path / "models"


def test_a_file_system_without_locks_is_served_and_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunDirectory.make(tmp_path) as run:
        assert sweep(tmp_path) == []
        assert run.path.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_servers_that_start_while_others_sweep_get_their_own(tmp_path: Path) -> None:
    """Whatever the sweepers find in the making, every directory is whole as long as its server lives."""
    done = threading.Event()

    def sweep_on() -> None:
        while not done.is_set():
            sweep(tmp_path)

    def live(_: int) -> None:
        with RunDirectory.make(tmp_path) as run:
            models = tmp_path / "models"
            claim = run.claim(models)
            (models / claim).mkdir(parents=True)
            assert (run.path / "claims" / claim).is_symlink()
            assert (models / claim).is_dir()

    with ThreadPoolExecutor(6) as threads:
        sweepers = [threads.submit(sweep_on) for _ in range(2)]
        try:
            list(threads.map(live, range(300)))
        finally:
            done.set()
        for sweeper in sweepers:
            sweeper.result()
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert list((tmp_path / "models").iterdir()) == []
