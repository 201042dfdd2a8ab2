"""Saving: one file after the other, whole or not at all, never in anybody's way."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from harness.disks import needs_mounts, tiny_disk
from modelserver.settings.command_line import parse
from modelserver.settings.loading import load
from modelserver.settings.snapshot import SavedVersion
from modelserver.settings.snapshot_files import SHUTDOWN, STARTUP, file_name, in_order, partial_name
from modelserver.settings.table import Settings
from modelserver.snapshots.folder import SnapshotFolder
from modelserver.snapshots.snapshots import Snapshots

ENTRY = SavedVersion(mar_name="m.mar", default=True, min_workers=1, max_workers=1, batch_size=1, max_batch_delay=100)
MODELS = {"m": {"1.0": ENTRY}}


@dataclass
class Log:
    """Remembers what is logged."""

    lines: list[str] = field(default_factory=list)

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        self.lines.append(f"{level} {logger} {message}")


class Desk:
    """Snapshots of a server in a directory."""

    def __init__(self, path: Path, config: str = "", **environ: str) -> None:
        self.path = path / "logs" / "config"
        (path / "config.properties").write_text(config)
        self.settings = load(parse(["--ts-config", "config.properties"]), environ, path)
        self.log = Log()
        self.snapshots = Snapshots(self.settings, self.log)

    def names(self) -> list[str]:
        """Files there are, oldest first."""
        return in_order(entry.name for entry in self.path.iterdir())

    def kinds(self) -> list[str]:
        return [name[18:-4] for name in self.names()]

    def read(self, name: str) -> Settings:
        """What a start reads from a file."""
        return load(parse(["--ts-config", str(self.path / name)]), {}, self.path.parents[1])


def play(path: Path, scene: Callable[[Desk], Awaitable[None]], config: str = "", **environ: str) -> Desk:
    async def main() -> Desk:
        desk = Desk(path, config, **environ)
        await scene(desk)
        return desk

    return asyncio.run(main())


async def whole_life(desk: Desk) -> None:
    await desk.snapshots.open({})
    await desk.snapshots.models_changed(MODELS)
    await desk.snapshots.close(MODELS)


def test_a_file_for_every_event(tmp_path: Path) -> None:
    desk = play(tmp_path, whole_life)
    assert desk.kinds() == ["startup", "snapshot", "shutdown"]
    for name, models in zip(desk.names(), ({}, MODELS, MODELS), strict=True):
        snapshot = desk.read(name).model_snapshot
        assert snapshot is not None
        assert (snapshot.name, snapshot.models, snapshot.model_count) == (name, models, len(models))
    assert desk.log.lines == []


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        await desk.snapshots.models_changed(MODELS)
        await desk.snapshots.close(MODELS)

    assert not play(tmp_path, scene).path.exists()


def test_nothing_after_the_end(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        await whole_life(desk)
        await desk.snapshots.models_changed({})
        await desk.snapshots.close({})

    assert play(tmp_path, scene).kinds() == ["startup", "snapshot", "shutdown"]


def test_changes_at_one_moment_keep_their_order(tmp_path: Path) -> None:
    async def scene(desk: Desk) -> None:
        await desk.snapshots.open({})
        changes = [{"m": {"1.0": replace(ENTRY, min_workers=number)}} for number in range(20)]
        await asyncio.gather(*map(desk.snapshots.models_changed, changes))

    desk = play(tmp_path, scene)
    snapshots = [desk.read(name).model_snapshot for name in desk.names()[1:]]
    assert [snapshot.models["m"]["1.0"].min_workers for snapshot in snapshots if snapshot] == list(range(20))


def test_everything_given_is_saved(tmp_path: Path) -> None:
    """The file, unknown keys, the environment; and facts that no start reads back."""
    config = "enable_envvars_config=true\nkeystore_pass=secret\nNUM_WORKERS=\\u00e4 b\nversion=0.1\nnumber_of_gpu=1\n"
    desk = play(tmp_path, whole_life, config, TS_JOB_QUEUE_SIZE="55")
    properties = desk.read(desk.names()[-1]).properties
    assert {key: properties[key] for key in ("keystore_pass", "NUM_WORKERS", "job_queue_size", "number_of_gpu")} == {
        "keystore_pass": "secret",
        "NUM_WORKERS": "ä b",
        "job_queue_size": "55",
        "number_of_gpu": "1",
    }
    text = (desk.path / desk.names()[-1]).read_text()
    assert "\ntsConfigFile=config.properties\n" in text and "\nversion=0.1\n" not in text and "\nversion=" in text
    assert f"\npython={desk.settings.python}\n" in text


def test_the_count_of_gpus_is_saved_only_where_it_was_asked_for(tmp_path: Path) -> None:
    desk = play(tmp_path, whole_life)
    assert "number_of_gpu" not in (desk.path / desk.names()[-1]).read_text()


def test_passwords_are_for_one_user(tmp_path: Path) -> None:
    desk = play(tmp_path, whole_life)
    assert {stat.S_IMODE((desk.path / name).stat().st_mode) for name in desk.names()} == {0o600}


def test_readers_that_cut_the_json_out(tmp_path: Path) -> None:
    """They know that colons and line ends are escaped, and nothing else."""
    desk = play(tmp_path, whole_life)
    lines = (desk.path / desk.names()[-1]).read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("model_snapshot=")]
    tree = json.loads(line.removeprefix("model_snapshot=").replace("\\:", ":").replace("\\n", ""))
    assert tree["modelCount"] == 1
    assert tree["models"]["m"]["1.0"]["runtimeType"] == "python"


@pytest.mark.parametrize("odd", ["a=b.mar", "#1!.mar", "ä€😀.mar", "h.py:handle"])
def test_odd_names_do_not_hurt_such_readers(tmp_path: Path, odd: str) -> None:
    async def scene(desk: Desk) -> None:
        await desk.snapshots.open({"m": {"1.0": replace(ENTRY, mar_name=odd)}})

    desk = play(tmp_path, scene)
    (name,) = desk.names()
    lines = (desk.path / name).read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("model_snapshot=")]
    json.loads(line.removeprefix("model_snapshot=").replace("\\:", ":").replace("\\n", ""))
    snapshot = desk.read(name).model_snapshot
    assert snapshot is not None and snapshot.models["m"]["1.0"].mar_name == odd


def test_where_no_directory_can_be_made(tmp_path: Path) -> None:
    """One line, and the server goes on."""
    (tmp_path / "logs").touch()
    desk = play(tmp_path, whole_life)
    (line,) = desk.log.lines
    assert line.startswith("ERROR snapshot.SnapshotManager Error while saving snapshot to file ")
    assert line.endswith(("Not a directory", "File exists"))


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "config").touch()
    (line,) = play(tmp_path, whole_life).log.lines
    assert "Error while saving snapshot to file" in line and line.endswith("File exists")


def test_a_disk_that_recovers(tmp_path: Path) -> None:
    """Is used again, and its next failure is told again."""

    async def scene(desk: Desk) -> None:
        (tmp_path / "logs").touch()
        await desk.snapshots.open({})
        await desk.snapshots.models_changed(MODELS)
        (tmp_path / "logs").unlink()
        await desk.snapshots.models_changed(MODELS)
        assert desk.kinds() == ["snapshot"]
        (desk.path / desk.names()[0]).unlink()
        desk.path.rmdir()
        desk.path.touch()
        await desk.snapshots.close(MODELS)

    assert len(play(tmp_path, scene).log.lines) == 2


def test_files_wait_in_bounds(tmp_path: Path) -> None:
    """Where the disk hangs, callers do not."""

    async def scene(desk: Desk) -> None:
        desk.path.mkdir(parents=True)
        os.mkfifo(desk.path / "hang")
        holding = asyncio.get_running_loop().run_in_executor(desk.snapshots._thread, _read, desk.path / "hang")
        for _ in range(200):
            saving = asyncio.ensure_future(desk.snapshots.open({}))
            await asyncio.sleep(0)
            saving.cancel()
        assert [line for line in desk.log.lines if "are waiting for the disk" in line]
        (desk.path / "hang").write_bytes(b"")
        await holding
        await desk.snapshots.close({})
        assert len(desk.names()) <= 101

    play(tmp_path, scene)


def _read(path: Path) -> bytes:
    return path.read_bytes()


# The folder itself.


def saved(folder: SnapshotFolder, path: Path, count: int) -> list[str]:
    """Save so many files; returns the names of those that are left."""
    for _ in range(count):
        folder.save(file_name(folder.next_moment(datetime(2026, 1, 1)), SHUTDOWN), b"a=b\n")
        folder.prune()
    return in_order(entry.name for entry in path.iterdir())


@pytest.mark.parametrize(("keep", "left"), [(0, 15), (1, 10), (12, 12)])
def test_old_files_go_but_the_newest_ten_stay(tmp_path: Path, keep: int, left: int) -> None:
    names = saved(SnapshotFolder(tmp_path, keep), tmp_path, 15)
    assert len(names) == left
    assert names[-1] == "20260101000000014-shutdown.cfg"


def test_only_its_own_files_go(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000-notes.cfg").touch()
    saved(SnapshotFolder(tmp_path, 1), tmp_path, 15)
    assert (tmp_path / "00000000000000000-notes.cfg").exists()


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """Leaves the newest file the newest."""
    now = datetime(2026, 11, 20, 7, 0)
    (tmp_path / file_name(now, STARTUP)).write_text("a=b")
    folder = SnapshotFolder(tmp_path, 0)
    folder.open()
    assert folder.next_moment(now - timedelta(hours=1)) == now + timedelta(milliseconds=1)
    assert folder.next_moment(now + timedelta(hours=1)) == now + timedelta(hours=1)


@pytest.mark.parametrize("name", ["99991231235959999-shutdown.cfg", "99999999999999999-shutdown.cfg"])
def test_times_that_never_come(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a=b")
    folder = SnapshotFolder(tmp_path, 0)
    folder.open()
    now = datetime(2026, 11, 20)
    assert folder.next_moment(now) == now


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path, 0)
    assert folder.save("20260101000000000-startup.cfg", b"first")
    assert not folder.save("20260101000000000-startup.cfg", b"second")
    assert (tmp_path / "20260101000000000-startup.cfg").read_bytes() == b"first"


def test_half_a_file_is_no_file(tmp_path: Path) -> None:
    """What a killed server has left half written goes at the next start."""
    partial = tmp_path / partial_name("20260101000000000-startup.cfg")
    partial.write_bytes(b"half")
    SnapshotFolder(tmp_path, 0).open()
    assert list(tmp_path.iterdir()) == []


@needs_mounts()
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """Neither a partial file nor an empty one."""
    with tiny_disk(tmp_path / "disk", 1 << 16) as disk:
        with pytest.raises(OSError, match="No space left"):
            SnapshotFolder(disk, 0).save("20260101000000000-startup.cfg", bytes(1 << 20))
        assert list(disk.iterdir()) == []
