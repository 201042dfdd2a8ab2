"""What a process tree costs, and that nothing of it survives its stop."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.processes import ProcessTree, cpu_clock

# A parent that ignores SIGTERM, and a child in a session of its own. Each writes its pid when it is set up.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""

SPIN = """
import time
end = time.process_time() + 0.3
while time.process_time() < end: pass
print("spun", flush=True)
time.sleep(600)
"""

# Its child spins and has been reaped when it is printed.
REAPING = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {SPIN.replace("sleep(600)", "sleep(0)")!r}], stdout=subprocess.DEVNULL)
print("reaped", flush=True)
time.sleep(600)
"""


@pytest.fixture
def trees() -> Iterator[list[ProcessTree]]:
    started: list[ProcessTree] = []
    yield started
    for tree in started:
        tree.stop()


def start(script: str, directory: Path) -> ProcessTree:
    tree = ProcessTree([sys.executable, "-c", script], dict(os.environ), directory, directory / "log")
    end = time.monotonic() + 30
    while not tree.log.read_text().endswith("\n"):
        assert time.monotonic() < end, "nothing printed"
        time.sleep(0.01)
    return tree


def test_stop_ends_descendants_in_other_sessions_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trees: list[ProcessTree]
) -> None:
    monkeypatch.setattr("benchmarks.processes.STOP_PATIENCE", 0.2)
    tree = start(STUBBORN, tmp_path)
    trees.append(tree)
    child = int(tree.log.read_text())
    members = {process.pid for process in tree.processes()}
    assert child in members
    assert len(members) == 2
    assert tree.running()
    tree.stop()
    assert not tree.running()
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_processor_time_and_memory_are_read(tmp_path: Path, trees: list[ProcessTree]) -> None:
    tree = start(SPIN, tmp_path)
    trees.append(tree)
    assert tree.cpu() >= 0.2  # the kernel counts in ticks
    assert tree.clocks().keys() == {tree.root.pid}
    assert tree.clocks()[tree.root.pid] >= 0.3
    assert tree.reaped_cpu() == 0
    assert tree.pss() > 2**20
    tree.settle()
    assert tree.running()


def test_processor_time_of_children_that_ended_is_told_apart(tmp_path: Path, trees: list[ProcessTree]) -> None:
    tree = start(REAPING, tmp_path)
    trees.append(tree)
    assert tree.reaped_cpu() >= 0.2
    assert tree.clocks().keys() == {tree.root.pid}


def test_the_clock_of_no_process_is_told() -> None:
    with pytest.raises(psutil.NoSuchProcess):
        cpu_clock(2**22 + 1)  # above the highest pid there can be


def test_a_tree_that_ended_costs_nothing(tmp_path: Path, trees: list[ProcessTree]) -> None:
    tree = start("print('done')", tmp_path)
    trees.append(tree)
    tree.stop()
    assert tree.processes() == []
    assert tree.cpu() == 0
    assert tree.clocks() == {}
    assert tree.pss() == 0
