"""The nursery as a process, spoken to over its control socket."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from modelserver.wire import control
from modelserver.wire.control import Adopt, Alive, Exited, FromNursery, Kill, Probe, Ready, Spawn, Spawned, SpawnFailed

ENTRY = Path(__file__).parent.parent.parent / "modelserver" / "worker" / "__main__.py"
DEADLINE = 60.0

START_A_THREAD = """
import sys, threading
if "nursery" in sys.argv:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


class Nursery:
    """A started nursery, its control socket, and one pipe that all its workers print to."""

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket) -> None:
        self.process = process
        self.link = link
        self.reader, self.writer = os.pipe()

    def order(
        self, slot: int, cwd: Path, *, fork: bool = True, executable: str = "", launcher: Sequence[str] = ()
    ) -> None:
        spawn = Spawn(
            slot, 1, 0, "/nowhere", "token", f"W-{slot}", str(cwd), [str(cwd)], {}, [], 0, executable, [*launcher], fork
        )
        socket.send_fds(self.link, [control.encode(spawn)], [self.writer, self.writer])

    def report(self) -> FromNursery:
        event: FromNursery = control.decode_from_nursery(self.link.recv(control.PACKET_LIMIT))
        return event

    def spawned(self) -> Spawned:
        event = self.report()
        assert isinstance(event, Spawned), event
        return event

    def exited(self) -> Exited:
        event = self.report()
        assert isinstance(event, Exited), event
        return event

    def exit_code(self) -> int:
        """Of the process that is reported next."""
        status = self.exited().status
        assert status is not None
        return os.waitstatus_to_exitcode(status)

    def threads(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("Threads:")[2].split()[0])


@contextmanager
def nursery(directory: Path, *modules: str, site: str = "") -> Iterator[Nursery]:
    """A nursery that shares `modules`, ended at the end; `site` runs in its interpreter before everything else."""
    extra = directory / "site"
    extra.mkdir()
    (extra / "sitecustomize.py").write_text(site)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", str(ENTRY), "nursery", str(theirs.fileno()), "", "", *modules],
            env={**os.environ, "PYTHONPATH": str(extra)},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    one = Nursery(process, ours)
    with process, ours:  # a failed test ends the nursery too
        ours.settimeout(DEADLINE)
        yield one
        ours.close()
        assert process.wait(DEADLINE) == 0
    os.close(one.reader)
    os.close(one.writer)


def test_ready_with_torch_and_a_single_thread(tmp_path: Path) -> None:
    with nursery(tmp_path, "torch") as one:
        ready = one.report()
        assert isinstance(ready, Ready)
        assert ready.pid == one.process.pid
        assert ready.torch
        assert one.threads() == 1


def test_modules_that_cannot_be_shared_are_named_and_cost_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Those that torch is missing for are left out without a word: a server of other handlers needs none."""
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "wants_torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')")
    (folder / "broken.py").write_text("1 / 0")
    site = f"import sys; sys.path.append({str(folder)!r})"
    with nursery(tmp_path, "no_such_module", "wants_torch", "broken", "colorsys", site=site) as one:
        ready = one.report()
        assert isinstance(ready, Ready)
        assert ready.torch == ""
        one.order(1, tmp_path)
        one.spawned()
    told = capfd.readouterr().err
    assert "preload_modules: no_such_module cannot be imported: No module named 'no_such_module'" in told
    assert "ZeroDivisionError" in told
    assert "wants_torch" not in told


def test_fork_and_exec_and_why(tmp_path: Path) -> None:
    plain, shadowing = tmp_path / "plain", tmp_path / "shadowing"
    plain.mkdir()
    shadowing.mkdir()
    (shadowing / "json.py").write_text("raise RuntimeError")
    with nursery(tmp_path) as one:
        assert isinstance(one.report(), Ready)
        one.order(1, plain)
        assert one.spawned().why == ""
        assert one.exit_code() == 1  # there is nothing to connect to
        one.order(2, plain, fork=False)
        assert one.spawned().why == "asked for"
        assert one.exit_code() == 1
        one.order(3, shadowing)
        assert one.spawned().why == f"{shadowing / 'json.py'} is already imported"
        assert one.exit_code() == 1
        printed = os.read(one.reader, 1 << 16).decode()
        assert printed.count("FileNotFoundError") == 3, printed


def test_a_nursery_with_threads_does_not_fork(tmp_path: Path) -> None:
    """A site package or a library may start one; its locks would be copied without their owners."""
    with nursery(tmp_path, site=START_A_THREAD) as one:
        assert isinstance(one.report(), Ready)
        assert one.threads() == 2
        one.order(1, tmp_path)
        assert one.spawned().why == "the nursery has 2 threads"
        one.exited()


def test_spawns_that_fail_are_answered_and_the_nursery_lives_on(tmp_path: Path) -> None:
    with nursery(tmp_path) as one:
        assert isinstance(one.report(), Ready)
        one.order(1, tmp_path, executable="/nowhere/python")
        failed = one.report()
        assert isinstance(failed, SpawnFailed)
        assert (failed.slot, failed.generation, failed.rank) == (1, 1, 0)
        assert "FileNotFoundError" in failed.reason
        one.order(2, tmp_path, executable="nul\0byte")
        assert isinstance(one.report(), SpawnFailed)
        one.order(3, tmp_path)
        assert one.spawned().slot == 3
        one.exited()


def test_no_descriptors_left(tmp_path: Path) -> None:
    with nursery(tmp_path) as one:
        assert isinstance(one.report(), Ready)
        used = {int(path.name) for path in Path(f"/proc/{one.process.pid}/fd").iterdir()}
        room = next(number for number in range(len(used) + 1) if number not in used) + 1
        limit_descriptors(one.process.pid, room)  # for one of two pipes
        one.order(1, tmp_path)
        failed = one.report()
        assert isinstance(failed, SpawnFailed)
        assert failed.reason == "the nursery has no descriptors left"
        limit_descriptors(one.process.pid, 256)
        one.order(2, tmp_path)
        assert one.spawned().slot == 2
        one.exited()


def limit_descriptors(pid: int, descriptors: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def test_a_frontend_that_does_not_read_loses_nothing(tmp_path: Path) -> None:
    """The reports fill the socket; orders are still carried out, and all reports arrive in the end."""
    count = 2000  # reports; a socket holds a few hundred
    with nursery(tmp_path) as one:
        assert isinstance(one.report(), Ready)
        for slot in range(count):
            one.order(slot, tmp_path, executable="/nowhere/python")
        slots = [event.slot for event in (one.report() for _ in range(count)) if isinstance(event, SpawnFailed)]
        assert slots == list(range(count))


def test_only_its_own_workers_are_killed(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger, nursery(tmp_path) as one:
        assert isinstance(one.report(), Ready)
        one.link.send(control.encode(Kill(stranger.pid)))
        one.order(1, tmp_path, executable=sleeper(tmp_path))
        worker = one.spawned()
        assert stranger.poll() is None
        one.link.send(control.encode(Kill(worker.pid)))
        assert one.exit_code() == -signal.SIGKILL
        stranger.kill()


def test_a_probe_is_answered_behind_the_orders_before_it(tmp_path: Path) -> None:
    with nursery(tmp_path) as one:
        assert isinstance(one.report(), Ready)
        one.order(1, tmp_path, executable=sleeper(tmp_path))
        one.link.send(control.encode(Probe()))
        assert one.spawned().slot == 1
        assert one.report() == Alive()


def test_the_end_of_the_control_socket_is_the_end_of_all_workers(tmp_path: Path) -> None:
    with nursery(tmp_path) as one:
        assert isinstance(one.report(), Ready)
        program = sleeper(tmp_path)
        for slot in range(3):
            one.order(slot, tmp_path, executable=program)
        pids = [one.spawned().pid for _ in range(3)]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_the_whole_service_do_not_end_it(tmp_path: Path, number: signal.Signals) -> None:
    with nursery(tmp_path) as one:
        assert isinstance(one.report(), Ready)
        os.killpg(one.process.pid, number)
        one.order(1, tmp_path)
        assert one.spawned().slot == 1
        one.exited()


def sleeper(directory: Path) -> str:
    """A program that takes any arguments and does nothing for long."""
    path = directory / "sleeper"
    path.write_text("#!/bin/sh\nexec sleep 600\n")
    path.chmod(0o755)
    return str(path)


LAUNCHER = """
import os, subprocess, sys, time
sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(sleeper.pid, flush=True)
if sys.argv[1] == "reap":
    sleeper.wait()
time.sleep(600)
"""


def launch(one: Nursery, directory: Path, *arguments: str) -> tuple[int, int]:
    """Pids of a launcher and of its rank."""
    (directory / "launcher.py").write_text(LAUNCHER)
    assert isinstance(one.report(), Ready)
    one.order(1, directory, launcher=[str(directory / "launcher.py"), *arguments])
    worker = one.spawned()
    assert worker.why == "started by a launcher"
    rank = int(os.read(one.reader, 100))
    return worker.pid, rank


def test_the_end_of_an_adopted_rank_ends_its_launcher_and_both_are_reported(tmp_path: Path) -> None:
    with nursery(tmp_path) as one:
        launcher, rank = launch(one, tmp_path, "stay")
        one.link.send(control.encode(Adopt(rank, launcher)))
        os.kill(rank, signal.SIGUSR1)  # SIGTERM is blocked until a rank unblocks it
        events = {event.pid: event for event in (one.exited(), one.exited())}
        assert events[launcher].after == rank
        assert events[rank].status == signal.SIGUSR1
        assert events[rank].max_rss > 0


def test_a_rank_that_ended_before_its_adoption_is_reported_too(tmp_path: Path) -> None:
    """Its launcher has reaped it: its status is unknown."""
    with nursery(tmp_path) as one:
        launcher, rank = launch(one, tmp_path, "reap")
        os.kill(rank, signal.SIGKILL)
        while Path(f"/proc/{rank}").exists():
            pass
        one.link.send(control.encode(Adopt(rank, launcher)))
        first, second = one.exited(), one.exited()
        assert (first.pid, first.after) == (launcher, rank)
        assert second == Exited(rank, None, 0)
        one.link.send(control.encode(Adopt(rank, launcher)))  # and so is one whose launcher is gone
        assert one.exited() == Exited(rank, None, 0)


def test_a_launcher_is_killed_with_everything_it_has_launched(tmp_path: Path) -> None:
    with nursery(tmp_path) as one:
        launcher, rank = launch(one, tmp_path, "stay")
        one.link.send(control.encode(Kill(launcher)))
        ended = one.exited()
        assert (ended.pid, ended.after) == (launcher, 0)
        while Path(f"/proc/{rank}").exists():
            pass
