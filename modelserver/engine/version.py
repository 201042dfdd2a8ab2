"""One registered model version: its queue, its workers, its settings. The asyncio shell round a scheduler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from modelserver.archives.archive import Archive
from modelserver.engine.job import Chunks, Job, Overrun
from modelserver.engine.ports import Events
from modelserver.engine.requests import VersionStatus
from modelserver.engine.scheduler import Action, QueueFull, Scheduler, Send, Wake, Withdraw
from modelserver.engine.slot import SlotFactory, WorkerSlot
from modelserver.errors import Cause, Certificate, ServiceUnavailable, WorkerError
from modelserver.settings.model_options import ModelOptions
from modelserver.wire.frames import DESCRIBE, Batch, Cancel, Chunk, Failure, Replies

_CAUSES = frozenset(Cause)


class ModelVersion:
    """Takes jobs, hands batches to workers, hands replies back, and owns the workers that do it."""

    def __init__(
        self, *, archive: Archive, options: ModelOptions, scheduler: Scheduler, slots: SlotFactory, events: Events
    ) -> None:
        self.archive = archive
        self.options = options
        self.name = archive.model_name
        self.version = archive.version
        self.min_workers = options.min_workers
        self.max_workers = options.max_workers
        self.scheduler = scheduler
        self.slots: dict[int, WorkerSlot] = {}  # in the order of their start; removed ones leave at once
        self._retiring: dict[int, WorkerSlot] = {}  # removed ones that still have a process
        self._new_slot = slots
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._idle_waiter: asyncio.Future[None] | None = None
        self._failures = 0  # consecutive response timeouts
        self._open = False  # some worker serves, or may serve again

    # The hot path: submit -> _act -> _send; slot_answered -> _settle.

    def submit(self, job: Job) -> None:
        """Queue a job. Raises ServiceUnavailable without workers, without hope of one, or without room."""
        if not self._open:
            raise self.unavailable(job)
        job.owner = self
        try:
            actions = self.scheduler.add(job, self._loop.time())
        except QueueFull:
            raise self.unavailable(job) from None
        if actions:
            self._act(actions)

    def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if type(action) is Send:
                self._send(action)
            elif type(action) is Wake:
                if self._wake is None:
                    self._wake = self._loop.call_at(action.at, self._tick)
            elif type(action) is Withdraw:
                self._slot(action.worker).send(Cancel(action.batch, [action.job.request.id]))

    def _send(self, send: Send) -> None:
        slot = self._slot(send.worker)
        sent = time.monotonic()  # finer than the loop's clock, which stands still within a turn
        for job in send.jobs:
            job.sent = sent
            job.worker = slot.name
        slot.send(Batch(send.batch, send.jobs[0].kind, [job.request for job in send.jobs]))
        self._expect_reply(slot, self._loop.time())

    def slot_answered(self, slot: WorkerSlot, frame: Replies | Chunk) -> None:
        """A frame for a batch arrived."""
        jobs = self.scheduler.running(slot.id, frame.batch)
        if not jobs:
            return  # an answer to a batch that was given up meanwhile
        if not _fits(frame, len(jobs)):
            slot.kill(Cause.PROTOCOL, f"answered a batch of {len(jobs)} with replies to other requests")
            return  # its jobs fail with it
        if type(frame) is Chunk:
            self._forward(jobs, frame)
            self._expect_reply(slot, self._loop.time())
            return
        assert isinstance(frame, Replies)
        slot.reply_due = 0.0
        replied = time.monotonic()
        if actions := self.scheduler.reply(slot.id, frame.batch, self._loop.time()):
            self._act(actions)  # the next batch leaves before this one is answered: the worker need not wait
        ids = [job.request.id for job in jobs]
        self._events.batch_done(slot.name, self.name, ids, jobs[0].sent, replied, frame.metrics, frame.code == 200)
        self._settle(jobs, frame, replied)
        if slot.retiring or self._idle_waiter is not None:
            self._after_work(slot)

    def _settle(self, jobs: list[Job], frame: Replies, replied: float) -> None:
        """Answer the jobs of a batch."""
        if frame.code != 200:
            certificate = _certificate(frame.failure)
            for job in jobs:
                job.replied = replied
                job.fail(WorkerError(frame.code, frame.message, certificate=certificate))
            return
        self._failures = 0
        for reply in frame.replies:
            job = jobs[reply.index]
            job.replied = replied
            if job.chunks is None:
                job.succeed(reply)
            elif not job.cancelled:
                _put(job, reply.body)
                job.chunks.end()

    def _forward(self, jobs: list[Job], frame: Chunk) -> None:
        """Pass intermediate pieces on; the first one is the job's reply."""
        for reply in frame.replies:
            job = jobs[reply.index]
            if job.cancelled:
                continue
            if job.chunks is None:
                job.chunks = Chunks()
                job.succeed(reply)
            elif not _put(job, reply.body):
                self.cancel(job)

    # Deadlines: one timer for the forming batch, one for the earliest reply that is due.

    def _tick(self) -> None:
        self._wake = None
        self._act(self.scheduler.tick(self._loop.time()))

    def _expect_reply(self, slot: WorkerSlot, now: float) -> None:
        slot.reply_due = now + self.options.response_timeout
        if self._watch is None:
            self._watch = self._loop.call_at(slot.reply_due, self._check_replies)

    def _check_replies(self) -> None:
        """Kill workers whose reply is overdue; runs once per response timeout, not once per batch."""
        self._watch = None
        now = self._loop.time()
        busy = [slot for slot in [*self.slots.values(), *self._retiring.values()] if slot.reply_due]
        for slot in busy:
            if slot.reply_due <= now:
                slot.reply_due = 0.0
                self._reply_overdue(slot)
        pending = [slot.reply_due for slot in busy if slot.reply_due]
        if pending:
            self._watch = self._loop.call_at(min(pending), self._check_replies)

    def _reply_overdue(self, slot: WorkerSlot) -> None:
        self._failures += 1
        self._events.log(
            "ERROR", "wlm.WorkerThread", f"Number or consecutive unsuccessful inference {self._failures}", slot.name
        )
        self._events.log(
            "ERROR",
            "wlm.WorkerThread",
            "Backend worker error\n"
            "org.pytorch.serve.wlm.WorkerInitializationException: Backend worker did not respond in given time",
            slot.name,
        )
        slot.kill(Cause.RESPONSE_TIMEOUT, f"no reply within responseTimeout of {self.options.response_timeout} s")

    # Workers.

    def grow(self, count: int) -> list[WorkerSlot]:
        """Start that many more workers."""
        slots = [self._new_slot(self) for _ in range(count)]
        for slot in slots:
            self.slots[slot.id] = slot
            slot.start()
        self._reconsider()
        return slots

    def shrink(self, count: int, drain_timeout: float) -> list[WorkerSlot]:
        """Remove the newest workers; what they run, they finish within `drain_timeout` seconds."""
        slots = list(self.slots.values())[len(self.slots) - count :][::-1]
        for slot in slots:
            self._retire(slot, drain_timeout)
        return slots

    def _retire(self, slot: WorkerSlot, drain_timeout: float) -> None:
        self.slots.pop(slot.id, None)
        self._reconsider()
        self._retiring[slot.id] = slot
        slot.retire()
        self._act(self.scheduler.retire(slot.id, self._loop.time()))
        if not self.scheduler.busy(slot.id) or drain_timeout <= 0:
            slot.kill(Cause.STOPPED, "removed")
        else:
            self._loop.call_later(drain_timeout, slot.kill, Cause.STOPPED, f"still busy after {drain_timeout:g} s")

    def slot_ready(self, slot: WorkerSlot) -> None:
        """A worker has loaded."""
        self._act(self.scheduler.ready(slot.id, self._loop.time()))

    def slot_stopped(self, slot: WorkerSlot, certificate: Certificate, *, unread: bool) -> None:
        """A worker is dead: fail what it ran, hand on what it had not begun."""
        slot.reply_due = 0.0
        now = self._loop.time()
        lost = self.scheduler.gone(slot.id, now, unread=unread)
        for job in lost.failed:
            job.fail(_died(job, certificate))
        if lost.failed:
            ids = [job.request.id for job in lost.failed]
            self._events.batch_done(slot.name, self.name, ids, lost.failed[0].sent, 0.0, (), False)
        self._act(lost.actions)
        self._reconsider()
        if self.slots and not self._open:
            self.refuse_waiting(certificate)
        self._after_work(slot)

    def slot_ended(self, slot: WorkerSlot) -> None:
        """A removed worker has no process any more."""
        self._retiring.pop(slot.id, None)

    def _after_work(self, slot: WorkerSlot) -> None:
        if slot.retiring and not self.scheduler.busy(slot.id):
            slot.kill(Cause.STOPPED, "removed")
        self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        if self._idle_waiter is not None and self.scheduler.idle and not self._idle_waiter.done():
            self._idle_waiter.set_result(None)

    def _slot(self, worker: int) -> WorkerSlot:
        return self.slots.get(worker) or self._retiring[worker]

    def _reconsider(self) -> None:
        self._open = any(not slot.recovery.gave_up for slot in self.slots.values())

    # The end of jobs and of the version.

    def cancel(self, job: Job) -> None:
        """The client of a job is gone."""
        if job.cancelled:
            return
        self._act(self.scheduler.cancel(job, self._loop.time()))
        self._tell_if_idle()

    def refuse_waiting(self, certificate: Certificate | None = None) -> None:
        """Answer everything that waits: there is no worker for it."""
        for job in self.scheduler.clear():
            error = self.unavailable(job)
            error.certificate = certificate
            job.fail(error)

    async def drain(self, limit: float) -> None:
        """Let running and waiting work finish for at most `limit` seconds, refuse the rest, end all workers."""
        if not self._open:
            self.refuse_waiting()
        if not self.scheduler.idle and limit > 0:
            self._idle_waiter = self._loop.create_future()
            await asyncio.wait([self._idle_waiter], timeout=limit)
        self.refuse_waiting()
        slots = [*self._retiring.values(), *self.shrink(len(self.slots), 0)]
        for slot in slots:
            slot.kill(Cause.STOPPED, f"still busy after {limit:g} s")
        if slots:
            await asyncio.wait([slot.ended for slot in slots])
        for timer in (self._wake, self._watch):
            if timer is not None:
                timer.cancel()

    def unavailable(self, job: Job) -> ServiceUnavailable:
        """The contract's text for a job that finds no worker or no room (its stray quote included)."""
        subject = f'Model "{self.name}"' + ("" if job.label == "default" else f' Version {job.label}"')
        if job.kind == DESCRIBE:
            return ServiceUnavailable(
                f'Model "{self.name}" has no worker to serve describe request. '
                "Please use scale workers API to add workers."
            )
        return ServiceUnavailable(
            f"{subject} has no worker to serve inference request. Please use scale workers API to add workers. "
            "If this is a sequence inference, please check if it is closed, or expired; "
            "or exceeds maxSequenceJobQueueSize"
        )

    def healthy(self) -> bool:
        """As many healthy workers as the minimum."""
        now = self._loop.time()
        return sum(slot.recovery.healthy(now) for slot in self.slots.values()) >= self.min_workers

    def status(self, *, loaded_at_startup: bool) -> VersionStatus:
        """As describe shows it."""
        options = self.options
        return VersionStatus(
            model_name=self.name,
            model_version=self.version,
            model_url=self.archive.url,
            runtime=self.archive.runtime,
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            batch_size=options.batch_size,
            max_batch_delay=options.max_batch_delay,
            response_timeout=options.response_timeout,
            startup_timeout=options.startup_timeout,
            max_retry_timeout_in_sec=options.max_retry_timeout_in_sec,
            client_timeout_in_mills=options.client_timeout_in_mills,
            parallel_type=options.parallel_type,
            parallel_level=options.parallel_level,
            device_type=options.device_type,
            device_ids=options.device_ids,
            continuous_batching=options.continuous_batching,
            use_job_ticket=options.use_job_ticket,
            use_venv=options.use_venv,
            stateful=options.sequence_batching,
            sequence_max_idle_msec=options.sequence_max_idle_msec,
            sequence_timeout_msec=options.sequence_timeout_msec,
            max_num_sequence=options.max_num_sequence,
            max_sequence_job_queue_size=options.max_sequence_job_queue_size,
            loaded_at_startup=loaded_at_startup,
            workers=tuple(slot.status() for slot in self.slots.values()),
            queue_remaining=max(0, self.scheduler.capacity - self.scheduler.waiting),
            queue_pending=self.scheduler.waiting,
        )


def _fits(frame: Replies | Chunk, size: int) -> bool:
    """Whether a frame answers the requests of a batch of that size: a broken worker must leave no job unanswered."""
    if isinstance(frame, Chunk):
        return all(0 <= reply.index < size for reply in frame.replies)
    if frame.code != 200:
        return True
    expected = 0
    for reply in frame.replies:
        if reply.index != expected:
            return False
        expected += 1
    return expected == size


def _certificate(failure: Failure | None) -> Certificate | None:
    """What a worker says of a failure that has one of the known causes."""
    if failure is None or failure.cause not in _CAUSES:
        return None
    return Certificate(Cause(failure.cause), failure.detail, failure.traceback)


def _died(job: Job, certificate: Certificate) -> WorkerError:
    overdue = job.kind == DESCRIBE and certificate.cause is Cause.RESPONSE_TIMEOUT
    message = "Failed to get customized model matadata." if overdue else "Worker died."  # spelt as clients know it
    return WorkerError(certificate.cause.http_status, message, certificate=certificate)


def _put(job: Job, piece: bytes) -> bool:
    """False if the client has fallen too far behind: its stream is cut."""
    assert job.chunks is not None
    if piece:
        try:
            job.chunks.put(piece)
        except Overrun:
            return False
    return True
