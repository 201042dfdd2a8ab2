"""Environments that models share: made once, never seen half made, and deleted only when nobody leans on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelserver.archives.environments import Environments, Unusable, fingerprint, folders_for
from modelserver.archives.programs import Programs, Stopped

# Begins to make an environment, tells so, and never ends.
MAKER = """
import sys, time
from pathlib import Path
from modelserver.archives.environments import Environments

def make(place):
    (place / "half").touch()
    print("making", flush=True)
    time.sleep(600)

Environments([Path(sys.argv[1])]).take("k", Path(sys.argv[1]), make)
"""


class House:
    """A folder of environments, and model directories that lean on them."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "cache"
        self.environments = Environments([self.folder])
        self.made = 0
        self.user = root / "model"
        self.user.mkdir()

    def make(self, place: Path) -> None:
        assert list(place.iterdir()) == []
        self.made += 1
        (place / "package").write_text(str(self.made))

    def take(self, key: str = "k", user: Path | None = None) -> tuple[Path, bool]:
        return self.environments.take(key, user or self.user, self.make)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_the_second_one_gets_what_the_first_has_made(house: House) -> None:
    contents, found = house.take()
    assert (contents, found) == (house.folder / "k" / "contents", False)
    assert house.take() == (contents, True)
    assert (contents / "package").read_text() == "1"
    assert house.take("other") == (house.folder / "other" / "contents", False)
    assert house.folder.stat().st_mode & 0o777 == 0o700


def test_a_failure_leaves_nothing(house: House) -> None:
    def fail(place: Path) -> None:
        house.make(place)
        raise ValueError

    with pytest.raises(ValueError):
        house.environments.take("k", house.user, fail)
    assert not (house.folder / "k").exists()
    assert house.take() == (house.folder / "k" / "contents", False)


def test_what_a_dead_maker_has_left_is_never_used(house: House) -> None:
    house.folder.mkdir(mode=0o700)
    with subprocess.Popen([sys.executable, "-c", MAKER, str(house.folder)], stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"making\n"
        assert house.environments.prune() == [], "it is being made"
        maker.send_signal(signal.SIGKILL)
    assert (house.folder / "k" / "contents" / "half").exists()
    contents, found = house.take()
    assert not found
    assert [path.name for path in contents.iterdir()] == ["package"]


def test_everybody_waits_for_the_one_who_makes_it(house: House) -> None:
    begun, go = threading.Event(), threading.Event()
    founds: list[bool] = []

    def slowly(place: Path) -> None:
        house.make(place)
        begun.set()
        assert go.wait(60)

    def take() -> None:
        founds.append(house.environments.take("k", house.user, slowly)[1])

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    go.set()
    for thread in threads:
        thread.join(60)
    assert sorted(founds) == [False, True, True, True, True]
    assert house.made == 1


def test_one_who_waits_can_be_stopped(house: House) -> None:
    programs = Programs()
    held, ends = threading.Event(), list[type[BaseException]]()

    def wait_in_vain(_: Path) -> None:
        def take() -> None:
            try:
                house.environments.take("k", house.user, house.make, pause)
            except Stopped as stopped:
                ends.append(type(stopped))

        def pause(seconds: float) -> None:
            held.set()
            programs.pause(seconds)

        waiting = threading.Thread(target=take)
        waiting.start()
        assert held.wait(60)
        programs.stop()
        waiting.join(60)

    house.environments.take("k", house.user, wait_in_vain)
    assert ends == [Stopped]
    assert house.made == 0


def test_only_what_no_model_leans_on_is_pruned(house: House) -> None:
    other = house.user.with_name("other")
    other.mkdir()
    contents, _ = house.take()
    house.take(user=other)
    house.user.rmdir()
    assert house.environments.prune() == []
    other.rmdir()
    assert house.environments.prune(unused_for=3600) == [], "it was used just now"
    long_ago = time.time() - 7200
    os.utime(contents.parent / "complete", (long_ago, long_ago))
    assert house.environments.prune(unused_for=3600) == [house.folder / "k"]
    assert list(house.folder.iterdir()) == []
    assert house.take(user=house.folder) == (contents, False)


def test_the_command_prunes(house: House) -> None:
    house.take()
    command = [sys.executable, "-m", "modelserver.archives.prune", "--cache", str(house.folder)]
    kept = subprocess.run(command, capture_output=True, text=True, check=True)
    assert kept.stdout == "Nothing to delete: every environment is in use.\n"
    house.user.rmdir()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"Deleted {house.folder / 'k'}\n"
    assert list(house.folder.iterdir()) == []


def spoil_file(folder: Path) -> None:
    folder.touch()


def spoil_permissions(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


@pytest.mark.parametrize("spoil", [spoil_file, spoil_permissions])
def test_a_folder_that_cannot_be_trusted(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    spoil(bad)
    with pytest.raises(Unusable, match=r"no folder for environments \(setting environment_cache\): .*bad: "):
        Environments([bad]).take("k", tmp_path, lambda _: None)
    contents, _ = Environments([bad, good]).take("k", tmp_path, lambda _: None)
    assert contents == good / "k" / "contents"


def test_where_environments_are_kept(tmp_path: Path) -> None:
    last = tmp_path / f"modelserver-environments-{os.getuid()}"
    assert folders_for(tmp_path / "chosen", tmp_path, {"HOME": "/h"}) == [tmp_path / "chosen"]
    assert folders_for(None, tmp_path, {"HOME": "/h"}) == [Path("/h/.cache/modelserver/environments"), last]
    assert folders_for(None, tmp_path, {"HOME": "/h", "XDG_CACHE_HOME": "/x"})[0] == Path("/x/modelserver/environments")
    assert folders_for(None, tmp_path, {}) == [last]


def test_a_fingerprint_tells_facts_apart() -> None:
    assert len({fingerprint("a", "b"), fingerprint("ab"), fingerprint("a"), fingerprint("b", "a")}) == 4
