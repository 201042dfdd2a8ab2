"""The frontend's handle on the nursery: start it, give it orders, hear what became of them, replace it when it dies."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelserver.pool.orphans import Exit, adopt_orphans, bury, end_workers
from modelserver.wire import control as wire
from modelserver.wire.control import Adopt, Alive, Dismiss, Exited, Kill, Probe, Ready, Spawn, Spawned

_ENTRY = Path(__file__).parent.parent / "worker" / "__main__.py"
_CLOSE_PATIENCE = 5.0  # seconds for the nursery to end its workers and itself
_RETRY_DELAY = 1.0  # seconds before the next attempt, after one that did not get ready
_SILENCE = 30.0  # seconds without an answer after which a nursery that was ready counts as dead
_SILENCE_TURNS = 10  # in as many pieces: while the whole machine stands still, no more than one of them goes by

Key = tuple[int, int, int]  # slot, generation, rank


class Watched(Protocol):
    """Who is told about the end of a process."""

    def exited(self, end: Exit | None, *, orphaned: bool = False) -> None:
        """The process is dead, with its nursery if `orphaned`; None if the nursery could not reap it."""


class Child(Watched, Protocol):
    """Who is told about a worker process: `spawned` and later `exited`, or `spawn_failed`."""

    def spawned(self, pid: int, command: list[str], why: str) -> None:
        """The process exists; `why` says why it was exec'd, "" if it was forked."""

    def spawn_failed(self, reason: str) -> None:
        """There will be no process."""


@dataclass(frozen=True, slots=True)
class _Packet:
    payload: bytes
    descriptors: tuple[int, ...] = ()
    key: Key | None = None  # of a spawn

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class Nursery:
    """Orders may be given at any time; they wait while a nursery is being started or replaced."""

    def __init__(
        self,
        environ: Mapping[str, str],
        run_directory: Path | None = None,
        python: str = sys.executable,
        silence: float = _SILENCE,
        modules: Sequence[str] = (),
    ) -> None:
        self.environ = dict(environ)
        self._run_directory = run_directory  # the nursery removes it if this process is killed
        self._descriptor_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # of every nursery and its workers
        self.ready: Ready | None = None  # what the nursery said once it had imported what it shares
        self._python = python
        self._modules = modules  # what every nursery imports for its workers
        self._outbox: deque[_Packet] = deque()
        self._awaited: dict[Key, Child] = {}  # ordered
        self._alive: dict[int, Watched] = {}  # by pid; launchers before their ranks
        self._silence = silence / _SILENCE_TURNS  # seconds of one turn
        self._unproven = False  # orders have been given since the last probe
        self._probe: asyncio.TimerHandle | None = None  # its answer is outstanding: the next turn of silence
        self._closing = False
        self._revival: asyncio.Task[None] | None = None
        self._process, self._control = self._start()

    @classmethod
    def launch(
        cls,
        environ: Mapping[str, str],
        run_directory: Path | None = None,
        silence: float = _SILENCE,
        modules: Sequence[str] = (),
    ) -> Nursery:
        """Start the nursery. For the time before the event loop, threads and `import grpc`."""
        adopt_orphans()
        return cls(environ, run_directory, silence=silence, modules=modules)

    @property
    def pid(self) -> int:
        """Of the nursery that runs now."""
        return self._process.pid

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to talk to the nursery."""
        self._loop = loop
        loop.add_reader(self._control, self._read)
        self._flush()

    def spawn(self, order: Spawn, stdout: int, stderr: int, child: Child) -> None:
        """Order a worker process; takes over the two descriptors, unless it raises.

        Raises ValueError for an order that cannot be sent, ConnectionError once the nursery is closed.
        """
        if self._closing:
            raise ConnectionAbortedError("the server stops")
        key = (order.slot, order.generation, order.rank)
        packet = _Packet(_encode(order), (stdout, stderr), key)
        self._awaited[key] = child
        self._post(packet)

    def adopt(self, pid: int, launcher: int, rank: Watched) -> None:
        """Watch a process that the launcher has made: the end of one is the end of both."""
        if launcher in self._alive and pid not in self._alive:
            self._alive[pid] = rank
            self._post(_Packet(wire.encode(Adopt(pid, launcher))))
        else:
            self._loop.call_soon(rank.exited, None)

    def kill(self, pid: int) -> None:
        """SIGKILL the process group of a worker."""
        if pid in self._alive:
            self._post(_Packet(wire.encode(Kill(pid))))

    def kill_without_it(self, pid: int) -> None:
        """SIGKILL the process group of a worker, for a nursery that does not; returns at once."""
        if pid in self._alive:
            thread = threading.Thread(target=end_workers, args=(self.pid, [pid]), daemon=True)
            thread.start()  # /proc tells of a process that hangs in the kernel only when it goes on

    async def close(self) -> None:
        """End the nursery with everything it has started."""
        self._closing = True
        if self._revival is not None:
            await asyncio.wait([self._revival])
        if self._connected:
            self._post(_Packet(wire.encode(Dismiss())))
            self._disconnect()
        if self.ready is None:
            self._process.kill()  # it still imports: it has no workers yet, and would see the end only afterwards
        await self._loop.run_in_executor(None, self._end_process)
        self._bereave("the server stops", {})

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        command = [self._python, "-P", str(_ENTRY), "nursery", str(theirs.fileno()), str(self._descriptor_limit)]
        command += [str(self._run_directory or ""), *self._modules]
        with theirs:
            try:
                process = subprocess.Popen(
                    command,
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        return process, ours

    def _end_process(self) -> None:
        try:
            self._process.wait(_CLOSE_PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        bury(self._process, list(self._alive))

    def _post(self, packet: _Packet) -> None:
        """Send an order."""
        self._queue(packet)
        self._unproven = True
        self._demand_answer()

    def _demand_answer(self) -> None:
        """A nursery that is ready has to say in time that it has taken its orders."""
        if self._unproven and self._probe is None and self.ready is not None and not self._closing:
            self._unproven = False
            self._queue(_Packet(wire.encode(Probe())))
            self._await_answer(_SILENCE_TURNS)

    def _queue(self, packet: _Packet) -> None:
        self._outbox.append(packet)
        if self._connected and len(self._outbox) == 1:
            self._flush()

    @property
    def _connected(self) -> bool:
        """There is a nursery, ready or not, that takes orders."""
        return self._control.fileno() >= 0

    def _await_answer(self, turns: int) -> None:
        """Give up on the nursery when so many turns have gone by in silence."""
        if turns:
            self._probe = self._loop.call_later(self._silence, self._await_answer, turns - 1)
        else:
            self._lose()

    def _flush(self) -> None:
        """Send what the socket takes; the rest follows when the nursery has read."""
        try:
            while self._outbox:
                self._send(self._outbox[0])
                self._outbox.popleft().close()
        except BlockingIOError:
            self._loop.add_writer(self._control, self._flush)
            return
        except ConnectionError:
            pass  # its death shows at the next read
        self._loop.remove_writer(self._control)

    def _send(self, packet: _Packet) -> None:
        try:
            socket.send_fds(self._control, [packet.payload], packet.descriptors)
        except (BlockingIOError, ConnectionError):
            raise
        except OSError as error:  # the kernel has no memory, or too many descriptors are on their way
            child = self._awaited.pop(packet.key, None) if packet.key else None
            if child is not None:
                self._loop.call_soon(child.spawn_failed, f"{type(error).__name__}: {error}")
            self._stop_waiting()  # it may have been the probe; the next order brings another one

    def _read(self) -> None:
        """Take in one report."""
        try:
            packet = self._control.recv(wire.PACKET_LIMIT)
        except BlockingIOError:
            return
        except ConnectionError:
            packet = b""  # it died with orders unread
        if packet:
            self._heard(wire.decode_from_nursery(packet))
        else:
            self._lose()

    def _lose(self) -> None:
        """The nursery is dead, or as good as dead."""
        self._disconnect()
        self._revival = self._loop.create_task(self._revive())

    def _heard(self, event: wire.FromNursery) -> None:
        if isinstance(event, Exited):
            if process := self._alive.pop(event.pid, None):
                status = event.status
                process.exited(None if status is None else Exit(status, event.max_rss, event.after))
        elif isinstance(event, Ready):
            self.ready = event
            self._demand_answer()
        elif isinstance(event, Alive):
            self._stop_waiting()
            self._demand_answer()
        elif child := self._awaited.pop((event.slot, event.generation, event.rank), None):
            if isinstance(event, Spawned):
                self._alive[event.pid] = child
                child.spawned(event.pid, event.command, event.why)
            else:
                child.spawn_failed(event.reason)

    def _stop_waiting(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    def _disconnect(self) -> None:
        self._stop_waiting()
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()

    async def _revive(self) -> None:
        """Bury the dead nursery with its workers, and start another one."""
        was_ready = self.ready is not None
        self.ready = None
        exits = await self._loop.run_in_executor(None, bury, self._process, list(self._alive))
        self._bereave("the nursery died", exits, keep_unsent=was_ready)
        started = False
        while not (started or self._closing):
            if not was_ready:
                await asyncio.sleep(_RETRY_DELAY)
            try:
                self._process, self._control = await self._loop.run_in_executor(None, self._start)
                started = True
            except OSError:
                was_ready = False  # no processes or descriptors left: try again later
        self._revival = None
        if started:
            self.attach(self._loop)

    def _bereave(self, reason: str, exits: Mapping[int, Exit], keep_unsent: bool = False) -> None:
        """Tell everybody who waits for a process, or has one, that it is gone; unsent orders may stay."""
        outbox, self._outbox = self._outbox, deque[_Packet]()
        awaited, self._awaited = self._awaited, {}
        alive, self._alive = self._alive, {}
        for packet in outbox:
            if keep_unsent and packet.key in awaited:
                self._outbox.append(packet)
                self._awaited[packet.key] = awaited.pop(packet.key)
            else:
                packet.close()
        for child in awaited.values():
            child.spawn_failed(reason)
        for pid, process in alive.items():
            process.exited(exits.get(pid), orphaned=True)


def _encode(order: Spawn) -> bytes:
    """Raises ValueError for text that is not Unicode, and for an order that does not fit into one packet."""
    payload = wire.encode(order)
    if len(payload) > wire.PACKET_LIMIT // 2:
        raise ValueError(f"order of {len(payload)} bytes does not fit into a packet")
    return payload
