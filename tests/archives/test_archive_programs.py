"""Programs that an installation runs: their output and status, and that nothing of them stays."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from harness.server import ended, eventually
from modelserver.archives import guard
from modelserver.archives.programs import OUTPUT_LIMIT, Outcome, Programs, Stopped

# Starts a process that outlives it, and ends when that process has told its pid through a file.
LEAVES_ONE_BEHIND = """
import pathlib, subprocess, sys, time
told = pathlib.Path(sys.argv[1])
subprocess.Popen([sys.executable, "-c", '''
import os, pathlib, sys, time
told = pathlib.Path(sys.argv[1])
told.with_suffix(".new").write_text(str(os.getpid()))
told.with_suffix(".new").rename(told)
time.sleep(600)
''', str(told)])
while not told.exists():
    time.sleep(0.005)
"""


def run(path: Path, source: str, *arguments: str, programs: Programs | None = None) -> Outcome:
    command = [sys.executable, "-c", source, *arguments]
    return (programs or Programs()).run(command, path, dict(os.environ), path)


def dead(pid: int) -> bool:
    try:
        return ended(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def test_output_and_status(tmp_path: Path) -> None:
    source = "import os, sys; print(os.getcwd(), flush=True); sys.stderr.buffer.write(b'\\xff'); sys.exit(3)"
    assert run(tmp_path, source) == Outcome(3, f"{tmp_path.resolve()}\n\ufffd")
    assert list(tmp_path.iterdir()) == []


def test_standard_input_is_empty(tmp_path: Path) -> None:
    assert run(tmp_path, "import sys; print(repr(sys.stdin.read()))") == Outcome(0, "''")


def test_a_signal_is_a_status(tmp_path: Path) -> None:
    assert run(tmp_path, "import os; os.kill(os.getpid(), 15)").status == 128 + 15


def test_the_end_of_long_output_is_kept(tmp_path: Path) -> None:
    outcome = run(tmp_path, f"print('x' * {OUTPUT_LIMIT}); print('last')")
    assert len(outcome.output) < OUTPUT_LIMIT
    assert outcome.output.endswith("x\nlast")


def test_a_program_that_does_not_exist(tmp_path: Path) -> None:
    outcome = Programs().run([str(tmp_path / "nothing")], tmp_path, {}, tmp_path)
    assert outcome.status == 127
    assert outcome.output.startswith("ERROR: ") and "nothing" in outcome.output


def test_a_guard_that_is_killed_takes_the_program_along(tmp_path: Path) -> None:
    source = "import os, signal, sys, time; print(os.getpid(), flush=True); os.kill(os.getppid(), 9); time.sleep(600)"
    outcome = run(tmp_path, source)
    assert outcome.status == 128 + 9
    eventually(lambda: dead(int(outcome.output)))


def test_what_a_program_leaves_behind_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    assert run(tmp_path, LEAVES_ONE_BEHIND, str(told)).status == 0
    eventually(lambda: dead(int(told.read_text())))


def test_one_who_adopts_orphans_keeps_no_dead_ones(tmp_path: Path) -> None:
    source = f"""
import os, pathlib, psutil, sys
from modelserver.archives.programs import Programs
from modelserver.pool.orphans import adopt_orphans
adopt_orphans()
place = pathlib.Path(sys.argv[1])
command = [sys.executable, "-c", {LEAVES_ONE_BEHIND!r}, str(place / "told")]
status = Programs().run(command, place, os.environ, place).status
print(status, psutil.Process().children(recursive=True))
"""
    done = subprocess.run([sys.executable, "-c", source, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0 []\n", "")


def test_stop_ends_what_runs_and_refuses_the_rest(tmp_path: Path) -> None:
    programs = Programs()
    told = tmp_path / "told"
    ends: list[type[BaseException]] = []

    def work() -> None:
        try:
            run(tmp_path, f"{LEAVES_ONE_BEHIND}\nimport time; time.sleep(600)", str(told), programs=programs)
        except Stopped as stopped:
            ends.append(type(stopped))

    thread = threading.Thread(target=work)
    thread.start()
    eventually(told.exists)
    programs.stop()
    thread.join(60)
    assert ends == [Stopped]
    eventually(lambda: dead(int(told.read_text())))
    with pytest.raises(Stopped):
        run(tmp_path, "", programs=programs)
    programs.stop()


def test_the_end_of_the_starter_is_the_end_of_everything(tmp_path: Path) -> None:
    told = tmp_path / "told"
    source = f"{LEAVES_ONE_BEHIND}\nimport time; time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, sys.executable, "-c", source, str(told)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    eventually(told.exists)
    assert process.stdin is not None and process.stdout is not None
    with process:
        process.stdin.close()
        assert process.stdout.read() == b""
    assert process.returncode == -9
    eventually(lambda: dead(int(told.read_text())))
