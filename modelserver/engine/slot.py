"""One worker slot of a model version: a place in its worker list, with an id, a state and a recovery clock.

It outlives the processes behind it: a crash leaves the slot, which starts the next process when its recovery clock
says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from modelserver.engine.ports import Events, WorkerLink, WorkerPort, WorkerSpec
from modelserver.engine.recovery import Recovery
from modelserver.engine.requests import WorkerStatus
from modelserver.errors import Cause, Certificate
from modelserver.settings.version import version
from modelserver.wire.frames import Batch, Cancel, Chunk, Hello, Load, Loaded, Metric, Replies


class State(StrEnum):
    """Worker states by the names that logs show; a slot without a process has none (`null`)."""

    NONE = "null"
    STARTED = "WORKER_STARTED"
    LOADED = "WORKER_MODEL_LOADED"
    ERROR = "WORKER_ERROR"
    STOPPED = "WORKER_STOPPED"
    SCALED_DOWN = "WORKER_SCALED_DOWN"


class SlotOwner(Protocol):
    """What a slot tells its model version."""

    min_workers: int
    slots: dict[int, WorkerSlot]

    def slot_ready(self, slot: WorkerSlot) -> None:
        """Loaded: it may be given work."""

    def slot_answered(self, slot: WorkerSlot, frame: Replies | Chunk) -> None:
        """A frame for a batch arrived."""

    def slot_stopped(self, slot: WorkerSlot, certificate: Certificate, *, unread: int) -> None:
        """The process is dead; what it ran has to be settled."""

    def slot_ended(self, slot: WorkerSlot) -> None:
        """Removed on purpose and its process is gone: forget it."""


STARTUP_EXPIRED = "Backend worker did not respond in given time"
_MEMORY_AGE = 1.0  # seconds
_TIMEOUTS = (Cause.LOAD_TIMEOUT, Cause.RESPONSE_TIMEOUT)  # these have announced themselves


class WorkerSlot:
    """Starts, loads, watches and restarts the processes of one slot."""

    def __init__(
        self,
        *,
        spec: WorkerSpec,
        load: Load,
        startup_timeout: float,
        response_timeout: float,
        window: float,
        port: WorkerPort,
        events: Events,
        owner: SlotOwner,
    ) -> None:
        self.id = spec.slot
        self.name = spec.name
        self.gpu = load.gpu
        self.pid = -1
        self.state = State.NONE
        self.created = datetime.now(UTC)
        self.certificate: Certificate | None = None  # of the last death
        self.reply_due = 0.0  # when the running batch times out; 0 while idle
        self.served = 0  # requests that the process has answered
        self.leaving: Certificate | None = None  # why its process ends as soon as it is idle
        self.recovery = Recovery(window)
        self.outcome: asyncio.Future[Certificate | None] = (
            asyncio.get_running_loop().create_future()
        )  # of the first load
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._spec = spec
        self._load = load
        self._startup_timeout = startup_timeout
        self._response_timeout = response_timeout
        self._port = port
        self._events = events
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._link: WorkerLink | None = None
        self._started_at = 0.0
        self._startup: asyncio.TimerHandle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._retry_at = 0.0
        self._memory, self._memory_until = 0, 0.0

    @property
    def retiring(self) -> bool:
        """Removed on purpose."""
        return self.state is State.SCALED_DOWN

    @property
    def recycling(self) -> bool:
        """Its process makes room for a fresh one, which has not loaded yet."""
        return any(end is not None and end.cause is Cause.RECYCLED for end in (self.leaving, self.certificate))

    @property
    def alive(self) -> bool:
        """Counts as running for scale calls: starting, started or loaded."""
        return self.state in (State.NONE, State.STARTED, State.LOADED)

    def start(self) -> None:
        """Begin the next process."""
        self._retry = None
        self.leaving = None
        self.served = 0
        self._spec = replace(self._spec, generation=self._spec.generation + 1)
        self._started_at = self._loop.time()
        self._link = self._port.start(self._spec, self)

    def send(self, frame: Batch | Cancel) -> None:
        """Only while loaded."""
        assert self._link is not None
        self._link.send(frame)

    def kill(self, cause: Cause, detail: str) -> None:
        """End the process; its certificate will carry this cause."""
        if self._link is not None:
            self._link.kill(Certificate(cause, detail))

    def recycle(self, why: str) -> None:
        """A fresh process takes over as soon as this one is idle and its owner has killed it."""
        self._info(f"Worker {self.id} is recycled: {why}")
        self.leaving = Certificate(Cause.RECYCLED, why)

    def retire(self) -> None:
        """Removed on purpose: no restart after the process's end. Ends at once if there is no process."""
        if self.retiring:
            return
        self.leaving = Certificate(Cause.STOPPED, "removed on request")
        self._debug("Shutting down the thread .. Scaling down.")
        self._become(State.SCALED_DOWN)
        self._cancel_timers()
        if not self.outcome.done():
            self.outcome.set_result(Certificate(Cause.STOPPED, "removed before it had loaded"))
        if self._link is None:
            self._end()

    def memory(self) -> int:
        """Resident memory of its process in bytes, 0 without one; asked of the kernel at most once a second."""
        now = self._loop.time()
        if self._link is None:
            return 0
        if now >= self._memory_until:
            self._memory, self._memory_until = self._link.memory(), now + _MEMORY_AGE
        return self._memory

    def status(self) -> WorkerStatus:
        """As describe shows it."""
        ready = self.state is State.LOADED
        retry = self._retry_at - self._loop.time() if self._retry else None
        return WorkerStatus(
            id=str(self.id),
            started=self.created,
            ready=ready,
            memory=self.memory(),
            pid=self.pid,
            gpu=self.gpu,
            device=self._spec.device,
            certificate=None if ready or self.certificate is None else replace(self.certificate, next_retry=None),
            next_retry=None if retry is None else max(0.0, retry),
            gave_up=self.recovery.gave_up,
        )

    # The calls of the worker port, in their order.

    def spawned(self, pid: int, command: Sequence[str], why: str) -> None:
        """The process exists."""
        self.pid = pid
        if why:
            self._log("INFO", f"Worker {self.id} runs a fresh interpreter: {why}", "wlm.WorkerLifeCycle")
        self._debug(f"Worker cmdline: [{', '.join(command)}]", logger="wlm.WorkerLifeCycle")

    def connected(self, hello: Hello) -> None:
        """The process asks what to load."""
        if self.retiring:
            return
        self.pid = hello.pid  # of rank 0, where `spawned` told the pid of a launcher
        self._become(State.STARTED)
        self._debug(f"Flushing req.cmd LOAD repeats 1 to backend at: {time.time_ns() // 1_000_000}")
        self._startup = self._loop.call_later(self._startup_timeout, self._startup_expired)
        assert self._link is not None
        self._link.send(self._load)

    def received(self, frame: Loaded | Replies | Chunk) -> None:
        """An answer; answers of a slot that has been removed still belong to its clients."""
        if isinstance(frame, Loaded):
            self._answered_load(frame)
        else:
            self._owner.slot_answered(self, frame)

    def reported(self, metrics: list[Metric]) -> None:
        """Metric updates outside a batch."""
        self._events.worker_metrics(self.name, self._load.model_name, metrics)

    def printed(self, stream: str, line: str) -> None:
        """A line of the process's output."""
        self._events.printed(self.name, stream, line)

    def gone(self, certificate: Certificate, *, unread: int) -> None:
        """The process is dead and reaped."""
        had_loaded = self.state is State.LOADED
        self._link = None
        self._cancel_timers()
        self._info(f"{self.id} Worker disconnected. {self.state}")
        for stream in ("stdout", "stderr"):
            reader = f"{self.name}-{stream}"
            self._events.log("INFO", "wlm.WorkerLifeCycle", f"Stopped Scanner - {reader}", reader)
        if self.retiring:
            self._owner.slot_stopped(self, certificate, unread=unread)
            self._end()
        elif certificate.cause is Cause.RECYCLED:
            self._replace(certificate)
        else:
            self._die(certificate, had_loaded=had_loaded, unread=unread)

    def _replace(self, certificate: Certificate) -> None:
        """A fresh process at once: nothing has failed."""
        self.certificate = certificate
        self._become(State.STOPPED)
        self._owner.slot_stopped(self, certificate, unread=0)
        self.start()

    def _die(self, certificate: Certificate, *, had_loaded: bool, unread: int) -> None:
        """The process failed: say why, and when the next one starts."""
        if certificate.cause not in _TIMEOUTS:
            self._debug(f"System state is : {self.state}")
            self._debug(
                "Backend worker monitoring thread interrupted or backend worker process died., "
                + self._limit_in_force()
            )
        if not had_loaded:
            self._log("WARN", f"Load model failed: {self._load.model_name}, error: Worker died.", "wlm.BatchAggregator")
        self._become(State.STOPPED)
        delay = self._schedule_retry(certificate, had_loaded=had_loaded)
        self.certificate = certificate = replace(certificate, next_retry=delay)
        self._announce(certificate)
        if not self.outcome.done():
            self.outcome.set_result(certificate)
        self._owner.slot_stopped(self, certificate, unread=unread)

    def _announce(self, certificate: Certificate) -> None:
        """The death in one line, in the server's log and in the model's."""
        delay = certificate.next_retry
        after = "no further attempt" if delay is None else f"next attempt in {delay:g} s"
        line = f"{self.name} died: {certificate.cause}: {certificate.detail} ({after})"
        self._log("ERROR", line)
        self._events.printed(self.name, "stderr", line)
        trace = certificate.traceback.split() and certificate.traceback.rstrip().splitlines()[-1]
        kind = trace.partition(":")[0] if trace else certificate.cause.name
        self._events.log(
            "INFO", "TELEMETRY_METRICS", f"ModelServerError.Count:1|#TorchServe:{version()},{kind}:-1", self.name
        )

    def _limit_in_force(self) -> str:
        if self.state is State.STARTED:
            return f"startupTimeout:{self._startup_timeout:g}sec"
        return f"responseTimeout:{self._response_timeout:g}sec"

    def _answered_load(self, frame: Loaded) -> None:
        if self._startup is not None:
            self._startup.cancel()
            self._startup = None
        if self.retiring:
            return
        if frame.code != 200:
            self._become(State.ERROR)  # the process ends by itself; its certificate follows
            return
        self._become(State.LOADED)
        if self.recovery.loaded():
            self._info("Auto recovery succeeded, reset recoveryStartTS")
        self.certificate = None
        self._events.worker_loaded(self.name, (self._loop.time() - self._started_at) * 1000)
        if not self.outcome.done():
            self.outcome.set_result(None)
        self._owner.slot_ready(self)

    def _startup_expired(self) -> None:
        self._startup = None
        reason = STARTUP_EXPIRED
        if self._spec.concurrent:
            reason = f"Worker did not load the model within {self._startup_timeout:g} seconds"
        self._log("ERROR", f"Backend worker error\norg.pytorch.serve.wlm.WorkerInitializationException: {reason}")
        self.kill(Cause.LOAD_TIMEOUT, f"initialize did not finish within startupTimeout of {self._startup_timeout:g} s")

    def _schedule_retry(self, certificate: Certificate, *, had_loaded: bool) -> float | None:
        """Seconds until the next attempt; None if there is none."""
        if self.recovery.since is None:
            self._info(f"Auto recovery start timestamp: {time.time_ns() // 1_000_000}")
        else:
            self._log("WARN", "Auto recovery failed again")
        delay = self.recovery.stopped(self._loop.time(), had_loaded=had_loaded, permanent=certificate.cause.permanent)
        if delay is not None:
            self._info(f"Retry worker: {self.id} in {delay:.0f} seconds.")
            self._retry = self._loop.call_later(delay, self.start)
            self._retry_at = self._loop.time() + delay  # uvloop's handles do not always know
        return delay

    def _end(self) -> None:
        self._debug("Worker terminated due to scale-down call.")
        if not self.ended.done():
            self.ended.set_result(None)
        self._owner.slot_ended(self)

    def _become(self, state: State) -> None:
        self._debug(f"{self.name} State change {self.state} -> {state}")
        self.state = state

    def _cancel_timers(self) -> None:
        for timer in (self._startup, self._retry):
            if timer is not None:
                timer.cancel()
        self._startup = self._retry = None

    def _debug(self, message: str, logger: str = "wlm.WorkerThread") -> None:
        self._log("DEBUG", message, logger)

    def _info(self, message: str) -> None:
        self._log("INFO", message)

    def _log(self, level: str, message: str, logger: str = "wlm.WorkerThread") -> None:
        self._events.log(level, logger, message, self.name)


SlotFactory = Callable[[SlotOwner], WorkerSlot]
