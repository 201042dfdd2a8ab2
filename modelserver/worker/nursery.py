"""The nursery: imports what workers share once, and is the parent of every worker, forked or exec'd.

It lives as long as its control socket. It has one thread, runs no torch operation and touches no device: after a
parallel operation a forked child waits for ever for threads that only its parent has (libgomp).
"""

from __future__ import annotations

import gc
import importlib
import os
import platform
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from setproctitle import setproctitle

from modelserver.process_group import GRACE, dismiss, is_caretaker, kill_groups
from modelserver.scratch import remove_dead
from modelserver.wire import control as wire
from modelserver.wire.control import (
    ORDER_VARIABLE,
    Adopt,
    Alive,
    Dismiss,
    Exited,
    Kill,
    Probe,
    Ready,
    Spawn,
    Spawned,
    SpawnFailed,
)
from modelserver.worker import kernel
from modelserver.worker.fork_or_exec import why_exec
from modelserver.worker.process import (
    default_threads,
    environment_of,
    ignore_signal,
    make_log,
    make_streams,
    set_threads,
    settle,
    take_streams,
)

ENTRY = str(Path(__file__).with_name("__main__.py"))

# One thread each for the native libraries of the nursery itself; they read the variables when they are loaded.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_FRONTEND_DEATH = 5.0  # seconds for a frontend that is being killed to let go of its files, after its control socket

_LAST_PATIENCE = 5.0  # seconds for all processes to vanish; one that hangs in a driver may take longer

_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # of terminals and service managers


@dataclass(frozen=True, slots=True)
class Birth:
    """What a forked child has to become; `stdout` and `stderr` are descriptors."""

    order: Spawn
    stdout: int
    stderr: int


def main(control_fd: str, descriptor_limit: str = "", run_directory: str = "", *modules: str) -> int:
    """Run the nursery, and in a forked child the worker; returns the exit status of either.

    The soft `descriptor_limit` stays as it is if none is given. `run_directory` is removed if its frontend is killed.
    `modules` are imported before the first fork, so that workers find them in memory.
    """
    setproctitle("modelserver nursery")
    if descriptor_limit:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(descriptor_limit), hard))
    user = dict(os.environ)
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    kernel.adopt_orphans()
    make_streams()
    preload(("modelserver.worker.main", *modules))
    nursery = Nursery(socket.socket(fileno=int(control_fd)), user)
    birth = nursery.serve()
    if birth is not None:
        return live(birth, user)
    if run_directory and not nursery.dismissed:
        remove_dead(Path(run_directory), _FRONTEND_DEATH)
    return 0


def live(birth: Birth, user: Mapping[str, str]) -> int:
    """Become the worker: the rest of a forked child's life."""
    from modelserver.worker.main import run  # loads handler-side libraries: not before the thread variables are set

    order = birth.order
    take_streams(birth.stdout, birth.stderr)
    sys.argv = command_of(order)[2:]
    settle(order, environment_of(user, order))
    set_threads(order.threads or default_threads(os.environ))
    return run(order)


def preload(modules: Sequence[str]) -> None:
    """Import what is installed of `modules`, and keep the collector away from it: forks then share its memory."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if error.name != "torch":  # servers of other handlers have none, and the worker that needs it reports it
                print(f"preload_modules: {name} cannot be imported: {error}", file=sys.stderr)
        except Exception:
            traceback.print_exc()
    if "numpy" in sys.modules:  # what reads tensors is not worth importing numpy for: few servers are sent any
        importlib.import_module("modelserver.worker.tensor_turns")
    # What every worker would do or throw away first: it would get pages of its own for that.
    make_log()
    sys.path_importer_cache.clear()
    gc.collect()
    gc.freeze()


def command_of(order: Spawn) -> list[str]:
    """The command line of an exec'd worker; a forked one shows the same."""
    options = ["--async"] if order.concurrent else []
    return [order.executable or sys.executable, "-P", *order.launcher, ENTRY, "--socket", order.socket, *options]


@dataclass(frozen=True, slots=True)
class Rank:
    """A process that a launcher has made, and that has connected."""

    launcher: int
    watch: int | None  # a descriptor, readable when the process has ended


class Nursery:
    """Carries out orders from the control socket and reports what becomes of them."""

    def __init__(self, control: socket.socket, user: Mapping[str, str]) -> None:
        self._control = control
        self.dismissed = False  # the frontend has ended the control socket on purpose
        self._user = user  # the environment that the nursery was started with
        self._workers: set[int] = set()  # pids, each one a process group too
        # Those of them that launch others -> why they were killed: None: not yet, 0: by order, else for that rank.
        self._launchers: dict[int, int | None] = {}
        self._ranks: dict[int, Rank] = {}  # by pid
        self._caretakers: deque[tuple[float, list[int]]] = deque()  # spared until that time, by their descriptors
        self._outbox: deque[bytes] = deque()
        self._alarm, self._alarmed = socket.socketpair()  # a byte arrives with every signal
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._alarmed, select.POLLIN)
        control.setblocking(False)
        control.set_inheritable(False)  # a copy in a worker would hide the end of the frontend

    def serve(self) -> Birth | None:
        """Work until the control socket ends. Returns None then, and in every forked child what it has to become."""
        self._listen_to_signals()
        torch = sys.modules.get("torch")
        self._report(Ready(os.getpid(), platform.python_version(), str(torch.__version__) if torch else ""))
        while True:
            self._flush()
            self._end_with_ranks({descriptor for descriptor, _ in self._poll.poll(self._pause())})
            self._dismiss_caretakers()
            self._reap()
            try:
                birth = self._obey()
            except ConnectionError:
                break
            if birth is not None:
                return birth
        self._end_everything()
        return None

    def _listen_to_signals(self) -> None:
        # A service manager may signal every process of the service; the nursery ends with its control socket only.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, ignore_signal)
        self._alarm.setblocking(False)
        self._alarmed.setblocking(False)
        signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)

    def _obey(self) -> Birth | None:
        """Carry out one order, if one has arrived. Raises ConnectionError at the end of the control socket."""
        try:
            packet, pipes, _, _ = socket.recv_fds(self._control, wire.PACKET_LIMIT, 2)
        except BlockingIOError:
            return None
        if not packet:
            raise ConnectionResetError
        for pipe in pipes:
            os.set_inheritable(pipe, False)  # recv_fds cannot do that
        order = wire.decode_to_nursery(packet)
        if isinstance(order, Kill):
            self._kill(order)
            return None
        if isinstance(order, Adopt):
            self._adopt(order)
            return None
        if isinstance(order, Probe):
            self._report(Alive())
            return None
        if isinstance(order, Dismiss):
            self.dismissed = True
            return None
        child = False
        try:
            child = self._spawn(order, pipes)
        finally:
            if not child:
                for pipe in pipes:
                    os.close(pipe)
        return Birth(order, *pipes) if child else None

    def _spawn(self, order: Spawn, pipes: list[int]) -> bool:
        """Make a worker process and report it; True in the forked child."""
        if len(pipes) != 2:
            self._fail(order, "the nursery has no descriptors left")
            return False
        why = why_exec(order, modules=sys.modules, search_path=sys.path, threads=kernel.count_threads())
        try:
            pid = self._exec(order, pipes) if why else os.fork()
        except (OSError, ValueError) as error:
            self._fail(order, f"{type(error).__name__}: {error}")
            return False
        if pid == 0:
            self._become_child()
            return True
        self._workers.add(pid)
        if order.launcher:
            self._launchers[pid] = None
        self._report(Spawned(order.slot, order.generation, order.rank, pid, command_of(order), why))
        return False

    def _exec(self, order: Spawn, pipes: list[int]) -> int:
        """Start a fresh interpreter. Its search path gets the model's directories only after our own imports."""
        environment = environment_of(self._user, order)
        environment.pop("PYTHONPATH", None)
        if "PYTHONPATH" in self._user and "PYTHONPATH" not in order.hidden:
            environment["PYTHONPATH"] = self._user["PYTHONPATH"]
        environment[ORDER_VARIABLE] = msgspec.json.encode(order).decode()
        command = command_of(order)
        return os.posix_spawnp(
            command[0],
            command,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, pipe, standard) for pipe, standard in zip(pipes, (1, 2), strict=True)],
            setsid=True,
            # Launchers would end at these at once, while the frontend still drains its requests. What they launch
            # inherits the mask, and unblocks them.
            setsigmask=_GROUP_SIGNALS if order.launcher else (),
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # ignored by every Python
        )

    def _become_child(self) -> None:
        """Let go of everything that is the nursery's."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (self._control, self._alarm, self._alarmed):
            descriptor.close()
        for rank in self._ranks.values():
            if rank.watch is not None:
                os.close(rank.watch)
        for _, watches in self._caretakers:
            for watch in watches:
                os.close(watch)

    def _kill(self, order: Kill) -> None:
        if order.pid not in self._workers:
            return
        launched: list[int] = []
        if order.pid in self._launchers:
            launched = kernel.children(order.pid)
            self._launchers[order.pid] = self._launchers[order.pid] or 0  # not the rank that will end first
        # Ranks lead groups of their own; those that have not connected yet outlive the launcher.
        self._kill_groups([order.pid, *launched])
        _kill(order.pid)  # forked just now, it may have no group of its own yet

    def _adopt(self, order: Adopt) -> None:
        """Watch a rank: its launcher would be slow to notice its end, might replace it, and keeps its exit status."""
        watch = None
        try:
            watch = kernel.watch(order.pid)
        except ProcessLookupError:
            self._end_launcher(order.launcher, order.pid)  # it has ended already
        self._ranks[order.pid] = Rank(order.launcher, watch)
        if watch is not None:
            self._poll.register(watch, select.POLLIN)
        if order.launcher not in self._launchers:
            self._give_up_ranks(order.launcher)

    def _end_with_ranks(self, ready: set[int]) -> None:
        """Kill the launchers of ranks that have ended: the nursery becomes the parent of these, and reaps them."""
        for pid, rank in self._ranks.items():
            if rank.watch in ready:
                self._poll.unregister(rank.watch)
                self._end_launcher(rank.launcher, pid)

    def _end_launcher(self, launcher: int, rank: int) -> None:
        """Kill it for the end of that rank, unless an order or a stranger has killed it before."""
        # One that was killed takes its ranks with it, and may end after them: its threads end one by one.
        if self._launchers.get(launcher, 0) is None and not kernel.ends(launcher):
            self._launchers[launcher] = rank
            self._kill_groups([launcher])

    def _give_up_ranks(self, launcher: int) -> None:
        """The launcher is gone: its ranks are the nursery's children now, or it has reaped them."""
        ours = kernel.children()
        for pid in [pid for pid, rank in self._ranks.items() if rank.launcher == launcher and pid not in ours]:
            # What the rank has left: as long as there is anything, its number is nobody else's.
            self._kill_groups([pid])
            self._forget_rank(pid)
            self._report(Exited(pid, None, 0))

    def _forget_rank(self, pid: int) -> None:
        rank = self._ranks.pop(pid, None)
        if rank is not None and rank.watch is not None:
            try:
                self._poll.unregister(rank.watch)
            except KeyError:
                pass  # it has told its end
            os.close(rank.watch)

    def _reap(self) -> None:
        """Report every worker that has ended; what is left of its process group goes with it."""
        self._hear_alarm()
        while (pid := _ended_child()) is not None:
            known = pid in self._workers or pid in self._ranks
            if known:
                self._kill_groups([pid])  # before it is reaped, while the pid cannot be anybody else's
            _, status, usage = os.wait4(pid, 0)
            if known:
                unit = 1 if sys.platform == "darwin" else 1024
                self._bury(pid, status, usage.ru_maxrss * unit)

    def _hear_alarm(self) -> None:
        with suppress(BlockingIOError):
            while self._alarmed.recv(4096):
                pass

    def _bury(self, pid: int, status: int, max_rss: int) -> None:
        """Report a process that is no more, with the ranks that went with it unnoticed."""
        self._workers.discard(pid)
        self._forget_rank(pid)
        launcher = pid in self._launchers
        self._report(Exited(pid, status, max_rss, self._launchers.pop(pid, None) or 0))
        if launcher:
            self._give_up_ranks(pid)

    def _kill_groups(self, groups: Collection[int]) -> None:
        if caretakers := kill_groups(groups):
            self._caretakers.append((time.monotonic() + GRACE, caretakers))

    def _pause(self) -> float | None:
        """Milliseconds until the time of a caretaker is over; None without one."""
        return max(0.0, self._caretakers[0][0] - time.monotonic()) * 1000 if self._caretakers else None

    def _dismiss_caretakers(self) -> None:
        """Kill those whose time is over."""
        while self._caretakers and self._caretakers[0][0] <= time.monotonic():
            dismiss(self._caretakers.popleft()[1])

    def _end_everything(self) -> None:
        """Kill all workers, and whatever they have started or left behind; caretakers come last."""
        now = time.monotonic()
        over, grace_over = now + _LAST_PATIENCE, now + GRACE
        killed: set[int] = set()
        while (living := {*self._workers, *kernel.children()}) and (now := time.monotonic()) < over:
            doomed = [pid for pid in living - killed if now >= grace_over or not is_caretaker(pid)]
            if doomed:
                self._kill_groups(doomed)
            for pid in doomed:
                _kill(pid)
            killed.update(doomed)
            reaped = self._reap_within((over if now >= grace_over else grace_over) - now)
            killed -= reaped
            self._workers -= reaped

    def _reap_within(self, seconds: float) -> set[int]:
        """Pids of the children that have ended, once one has or the time is over."""
        if not (reaped := set(_reap_ended())):
            alarm = select.poll()
            alarm.register(self._alarmed, select.POLLIN)
            alarm.poll(seconds * 1000)
            self._hear_alarm()
            reaped = set(_reap_ended())
        return reaped

    def _fail(self, order: Spawn, reason: str) -> None:
        self._report(SpawnFailed(order.slot, order.generation, order.rank, reason))

    def _report(self, event: wire.FromNursery) -> None:
        self._outbox.append(wire.encode(event))

    def _flush(self) -> None:
        """Send what the socket takes; the rest follows when the frontend has read."""
        try:
            while self._outbox:
                self._control.send(self._outbox[0])
                self._outbox.popleft()
        except (BlockingIOError, ConnectionError):
            pass  # an ended socket shows at the next read
        self._poll.modify(self._control, select.POLLIN | (select.POLLOUT if self._outbox else 0))


def _ended_child() -> int | None:
    """Pid of a child that has ended and is not reaped yet."""
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return ended.si_pid if ended else None


def _reap_ended() -> Iterator[int]:
    while (pid := _ended_child()) is not None:
        os.waitpid(pid, 0)
        yield pid


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
