"""How a process group is killed, and who in it is spared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from harness.server import ended, eventually
from modelserver.process_group import dismiss, end_groups, is_caretaker, kill_groups, wait_for

# Waits for the end of its standard input, which the leader holds, then says that it has cleaned up.
CARETAKER = "from multiprocessing.resource_tracker import main; import sys; sys.stdin.read(); open({mark!r}, 'w')"
LEADER = """
import subprocess, sys
caretaker = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for code in sys.argv[1:]]
sleeper = subprocess.Popen(["sleep", "600"])
print(*[one.pid for one in (*caretaker, sleeper)], flush=True)
sleeper.wait()
"""


@contextmanager
def group(*caretakers: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """A leader, and its children: the caretakers in their order, and one that sleeps."""
    command = [sys.executable, "-c", LEADER, *caretakers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as leader:
        assert leader.stdout is not None
        children = [psutil.Process(int(pid)) for pid in leader.stdout.readline().split()]
        eventually(lambda: all(is_caretaker(child.pid) for child in children[:-1]))
        try:
            yield leader, children
        finally:
            leader.kill()
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()


def test_a_group_without_caretakers_is_killed_as_a_whole() -> None:
    with group() as (leader, (sleeper,)):
        assert kill_groups([leader.pid]) == []
        assert leader.wait() == -signal.SIGKILL
        eventually(lambda: ended(sleeper))


def test_a_caretaker_outlives_its_group_and_cleans_up(tmp_path: Path) -> None:
    mark = tmp_path / "clean"
    with group(CARETAKER.format(mark=str(mark))) as (leader, (caretaker, sleeper)):
        watches = kill_groups([leader.pid])
        assert len(watches) == 1
        assert leader.wait() == -signal.SIGKILL
        eventually(lambda: ended(sleeper))
        wait_for(watches, 30)
        dismiss(watches)
        assert ended(caretaker)
        assert mark.exists()


def test_a_caretaker_that_does_not_end_is_killed_later(tmp_path: Path) -> None:
    stays = "from multiprocessing.resource_tracker import main; import time; time.sleep(600)"
    with group(stays, CARETAKER.format(mark=str(tmp_path / "clean"))) as (leader, children):
        end_groups([leader.pid])
        assert leader.wait() == -signal.SIGKILL
        eventually(lambda: all(map(ended, children)))
        assert (tmp_path / "clean").exists()


def test_only_the_groups_named_are_killed() -> None:
    with group() as (one, _), group() as (other, (sleeper,)):
        gone = subprocess.Popen(["true"], start_new_session=True)
        gone.wait()
        assert kill_groups([one.pid, gone.pid]) == []
        assert one.wait() == -signal.SIGKILL
        assert other.poll() is None
        assert not ended(sleeper)
        assert kill_groups([]) == []


def test_who_is_a_caretaker(tmp_path: Path) -> None:
    named = tmp_path / "torch_shm_manager"
    named.symlink_to("/bin/sleep")
    with subprocess.Popen([named, "600"]) as manager:
        eventually(lambda: is_caretaker(manager.pid))
        manager.kill()
        manager.wait()
        assert not is_caretaker(manager.pid)
    assert not is_caretaker(os.getpid())
