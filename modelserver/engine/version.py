"""One registered model version: its queue, its workers, its settings. The asyncio shell round a scheduler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from modelserver.archives.archive import Archive
from modelserver.engine.deadlines import Deadlines
from modelserver.engine.job import Chunks, Job, Overrun
from modelserver.engine.overdue import ReplyWatch, Watch
from modelserver.engine.ports import Events
from modelserver.engine.recycling import Recycling
from modelserver.engine.refusals import died, failed_alone, timed_out, unavailable
from modelserver.engine.requests import Ailment, VersionStatus
from modelserver.engine.scheduler import Action, NotAccepted, Scheduler, Send, Wake, Withdraw
from modelserver.engine.slot import SlotFactory, WorkerSlot
from modelserver.errors import Cause, Certificate, ServerError, ServiceUnavailable, WorkerError
from modelserver.settings.model_options import ModelOptions
from modelserver.wire.frames import Batch, Cancel, Chunk, Failure, Replies

_CAUSES = frozenset(Cause)
_NO_WORKERS = Certificate(Cause.NO_WORKER, "the model version has no workers: scale it up")
_REMOVED = Certificate(Cause.STOPPED, "the model version was removed, or the server stopped, before the request ran")


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
        self._client_timeout = options.client_timeout_in_mills / 1000  # seconds; 0: none
        self._deadlines = Deadlines(self._expire)
        self._replies = self._watch()
        recycling = Recycling(options.max_requests_per_worker, options.max_worker_memory)
        self._recycling = recycling if recycling else None
        self._wake: asyncio.TimerHandle | None = None  # of the forming batch
        self._idle_waiter: asyncio.Future[None] | None = None
        self._failures = 0  # consecutive response timeouts
        self._open = False  # some worker serves, or may serve again

    # The hot path: submit -> _act -> _send; slot_answered -> _settle.

    def submit(self, job: Job) -> None:
        """Queue a job. Raises ServiceUnavailable without workers, without hope of one, or without room."""
        if not self._open:
            raise unavailable(job, self._why_closed())
        job.owner = self
        try:
            actions = self.scheduler.add(job, self._loop.time())
        except NotAccepted as refusal:
            raise self._refused(job, refusal) from None
        if job.timeout or self._client_timeout:
            self._set_deadline(job)
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
        self._replies.expect(slot, send.batch)

    def slot_answered(self, slot: WorkerSlot, frame: Replies | Chunk) -> None:
        """A frame for a batch arrived."""
        jobs = self.scheduler.running(slot.id, frame.batch)
        if not jobs:
            return  # an answer to a batch that was given up meanwhile
        if not fits(frame, len(jobs)):
            slot.kill(Cause.PROTOCOL, f"answered a batch of {len(jobs)} with replies to other requests")
            return  # its jobs fail with it
        if type(frame) is Chunk:
            self._forward(jobs, frame)
            self._replies.expect(slot, frame.batch)
            return
        assert isinstance(frame, Replies)
        slot.reply_due = 0.0
        replied = time.monotonic()
        if self._recycling is not None:
            self._consider_recycling(slot, len(jobs))
        if actions := self.scheduler.reply(slot.id, frame.batch, self._loop.time()):
            self._act(actions)  # the next batch leaves before this one is answered: the worker need not wait
        ids = [job.request.id for job in jobs]
        self._events.batch_done(slot.name, self.name, ids, jobs[0].sent, replied, frame.metrics, frame.code == 200)
        self._settle(jobs, frame, replied)
        if slot.leaving is not None or self._idle_waiter is not None:
            self._after_work(slot)

    def _settle(self, jobs: list[Job], frame: Replies, replied: float) -> None:
        """Answer the jobs of a batch."""
        if frame.code != 200:
            certificate = _certificate(frame.failure)
            for job in self._settle_failed(jobs, frame, replied) if frame.failed else jobs:
                job.replied = replied
                job.handler_ns = frame.handler_ns
                if job.expired:
                    self._note_late(job, "error response")
                job.fail(WorkerError(frame.code, frame.message, certificate=certificate))
            return
        self._failures = 0
        if frame.failed:
            self._settle_failed(jobs, frame, replied)
        for reply in frame.replies:
            job = jobs[reply.index]
            job.replied = replied
            job.handler_ns = frame.handler_ns
            if job.cancelled:
                if job.expired:
                    self._note_late(job, "response")
            elif job.chunks is None:
                job.succeed(reply)
            else:
                _put(job, reply.body)
                job.end()

    def _settle_failed(self, jobs: list[Job], frame: Replies, replied: float) -> list[Job]:
        """Fail the jobs that failed alone, leave the replies to the others in the frame, and return those others."""
        failed = set(frame.failed)
        for reply in frame.replies:
            if reply.index in failed:
                job = jobs[reply.index]
                job.replied = replied
                if job.expired:
                    self._note_late(job, "error response")
                job.fail(failed_alone(reply))
        frame.replies = [reply for reply in frame.replies if reply.index not in failed]
        return [job for index, job in enumerate(jobs) if index not in failed]

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

    # Time: the forming batch, clients that stop waiting, workers that owe a reply.

    def _tick(self) -> None:
        self._wake = None
        self._act(self.scheduler.tick(self._loop.time()))

    def _set_deadline(self, job: Job) -> None:
        """The shorter one of what the model allows and what the client asks for counts."""
        job.timeout = min(job.timeout or self._client_timeout, self._client_timeout or job.timeout)
        self._deadlines.add(job, job.timeout)

    def _expire(self, job: Job) -> None:
        """Answer a job whose client has waited long enough, and free its place."""
        if not job.sent:
            self._warn("wlm.Model", f"Drop inference request {job.request.id} due to client timeout")
        self._give_up(job, timed_out(job, job.timeout))
        job.expired = True

    def _give_up(self, job: Job, error: ServerError) -> None:
        """Answer a job before its worker does: what that one still says about it is dropped."""
        done, chunks = job.done, job.chunks
        self.cancel(job)
        if chunks is not None:
            chunks.fail(error)
        else:
            job.error = error
            done(job)

    def _note_late(self, job: Job, what: str) -> None:
        self._warn("wlm.BatchAggregator", f"Drop {what} for inference request {job.request.id} due to client timeout")

    def _watch(self) -> Watch[WorkerSlot]:
        return ReplyWatch(self.options.response_timeout, self._all_slots, self._reply_overdue)

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
        slots = [self._add_slot() for _ in range(count)]
        for slot in slots:
            slot.start()
        self._reconsider()
        return slots

    def _add_slot(self) -> WorkerSlot:
        slot = self._new_slot(self)
        self.slots[slot.id] = slot
        return slot

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
            slot.kill(Cause.STOPPED, "removed on request")
        else:
            self._loop.call_later(drain_timeout, slot.kill, Cause.STOPPED, f"still busy after {drain_timeout:g} s")

    def _consider_recycling(self, slot: WorkerSlot, served: int) -> None:
        """Give a worker that has done its share no more work; one at a time, so that the others go on serving."""
        assert self._recycling is not None
        slot.served += served
        if slot.leaving is not None or any(other.recycling for other in self.slots.values()):
            return
        if why := self._recycling.why(slot.served, slot.memory):
            slot.recycle(why)
            self._act(self.scheduler.retire(slot.id, self._loop.time()))

    def slot_ready(self, slot: WorkerSlot) -> None:
        """A worker has loaded."""
        self._act(self.scheduler.ready(slot.id, self._loop.time()))

    def slot_stopped(self, slot: WorkerSlot, certificate: Certificate, *, unread: int) -> None:
        """A worker is dead: fail what it ran, hand on what it had not begun."""
        slot.reply_due = 0.0
        now = self._loop.time()
        lost = self.scheduler.gone(slot.id, now, unread=unread)
        for job in lost.failed:
            if job.expired:
                self._note_late(job, "error response")
            job.fail(died(job, certificate))
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
        if slot.leaving is not None and not self.scheduler.busy(slot.id):
            slot.kill(slot.leaving.cause, slot.leaving.detail)
        self._tell_if_idle()

    def _tell_if_idle(self) -> None:
        if self._idle_waiter is not None and self.scheduler.idle and not self._idle_waiter.done():
            self._idle_waiter.set_result(None)

    def _slot(self, worker: int) -> WorkerSlot:
        return self.slots.get(worker) or self._retiring[worker]

    def _all_slots(self) -> list[WorkerSlot]:
        return [*self.slots.values(), *self._retiring.values()]

    def _reconsider(self) -> None:
        self._open = any(not slot.recovery.gave_up for slot in self.slots.values())

    # The end of jobs and of the version.

    def cancel(self, job: Job) -> None:
        """The client of a job is gone."""
        if job.cancelled:
            return
        self._act(self.scheduler.cancel(job, self._loop.time()))
        self._tell_if_idle()

    def refuse_waiting(self, certificate: Certificate) -> None:
        """Answer everything that waits: there is no worker for it, for that reason."""
        for job in self.scheduler.clear():
            job.fail(unavailable(job, certificate))

    def _why_closed(self) -> Certificate:
        """Why no worker can serve: there is none, or the last one that died will not be started again."""
        deaths = [slot.certificate for slot in self.slots.values() if slot.certificate is not None]
        return deaths[-1] if deaths else _NO_WORKERS

    def _refused(self, job: Job, refusal: NotAccepted) -> ServiceUnavailable:
        if refusal.cause is Cause.NO_TICKET:
            self._events.log("INFO", "wlm.Model", "There are no job tickets available")
        return unavailable(job, Certificate(refusal.cause, refusal.detail))

    def _warn(self, logger: str, message: str) -> None:
        self._events.log("WARN", logger, message)

    async def drain(self, limit: float) -> None:
        """Let running and waiting work finish for at most `limit` seconds, refuse the rest, end all workers."""
        if not self._open:
            self.refuse_waiting(self._why_closed())
        if not self.scheduler.idle and limit > 0:
            self._idle_waiter = self._loop.create_future()
            await asyncio.wait([self._idle_waiter], timeout=limit)
        self.refuse_waiting(_REMOVED)
        slots = [*self._retiring.values(), *self.shrink(len(self.slots), 0)]
        for slot in slots:
            slot.kill(Cause.STOPPED, f"still busy after {limit:g} s")
        if slots:
            await asyncio.wait([slot.ended for slot in slots])
        self.refuse_waiting(_REMOVED)  # what the killed had not read yet waits again
        if self._wake is not None:
            self._wake.cancel()
        self._deadlines.close()
        self._replies.close()

    def healthy(self) -> bool:
        """As many healthy workers as the minimum."""
        now = self._loop.time()
        return sum(slot.recovery.healthy(now) for slot in self.slots.values()) >= self.min_workers

    def ailments(self) -> list[Ailment]:
        """The workers that count as unhealthy, each with the cause of its last death."""
        now = self._loop.time()
        ailing = [slot for slot in self.slots.values() if not slot.recovery.healthy(now)]
        return [Ailment(slot.certificate or _NO_WORKERS, self.name, self.version, str(slot.id)) for slot in ailing]

    def status(self, *, loaded_at_startup: bool) -> VersionStatus:
        """As describe shows it."""
        return VersionStatus(
            model_name=self.name,
            model_version=self.version,
            model_url=self.archive.url,
            runtime=self.archive.runtime,
            min_workers=self.min_workers,
            max_workers=self.max_workers,
            options=self.options,
            loaded_at_startup=loaded_at_startup,
            workers=tuple(slot.status() for slot in self.slots.values()),
            queue_remaining=max(0, self.scheduler.capacity - self.scheduler.waiting),
            queue_pending=self.scheduler.waiting,
        )


def fits(frame: Replies | Chunk, size: int) -> bool:
    """Whether a frame answers the requests of a batch of that size: a broken worker must leave no job unanswered."""
    if isinstance(frame, Chunk) or frame.code != 200:
        return all(0 <= reply.index < size for reply in frame.replies)
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


def _put(job: Job, piece: bytes) -> bool:
    """False if the client has fallen too far behind: its stream is cut."""
    assert job.chunks is not None
    if piece:
        try:
            job.chunks.put(piece)
        except Overrun:
            return False
    return True
