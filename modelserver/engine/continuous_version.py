"""A model version whose workers take requests in while others run: each batch is one step of all of them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Protocol

from modelserver.archives.archive import Archive
from modelserver.engine.job import Job, Place
from modelserver.engine.ports import Events
from modelserver.engine.scheduler import Action, Scheduler, Send
from modelserver.engine.slot import SlotFactory, WorkerSlot
from modelserver.engine.version import ModelVersion, fits
from modelserver.errors import Certificate
from modelserver.settings.model_options import ModelOptions
from modelserver.wire.frames import DESCRIBE, Batch, Chunk, Replies, Request


class SteppingScheduler(Scheduler, Protocol):
    """A scheduler that is told which jobs of a batch go on."""

    def reply(self, worker: int, batch: int, now: float, *, going_on: Collection[Job] = ()) -> Sequence[Action]:
        """A worker has answered a batch, and jobs in `going_on` not for good."""


class ContinuousVersion(ModelVersion):
    """The first reply to a job that goes on is the beginning of a stream, what follows are its pieces.

    Once a job has been replied to, its worker alone knows what was asked, and a step costs but its id.
    """

    scheduler: SteppingScheduler

    def __init__(
        self,
        *,
        archive: Archive,
        options: ModelOptions,
        scheduler: SteppingScheduler,
        slots: SlotFactory,
        events: Events,
    ) -> None:
        super().__init__(archive=archive, options=options, scheduler=scheduler, slots=slots, events=events)
        self._sent: dict[int, float] = {}  # when a worker got its last batch; monotonic seconds

    def _send(self, send: Send) -> None:
        slot = self._slot(send.worker)
        sent = self._sent[slot.id] = time.monotonic()
        for job in send.jobs[send.continued :]:
            job.sent = sent
            job.worker = slot.name
        slot.send(Batch(send.batch, send.jobs[0].kind, [job.request for job in send.jobs], send.continued))
        self._replies.expect(slot, send.batch)

    def slot_answered(self, slot: WorkerSlot, frame: Replies | Chunk) -> None:
        """A frame for a batch arrived."""
        jobs = self.scheduler.running(slot.id, frame.batch)
        if type(frame) is not Replies or not jobs or not fits(frame, len(jobs)):
            super().slot_answered(slot, frame)
            return
        slot.reply_due = 0.0
        replied = time.monotonic()
        going_on = _going_on(jobs, frame)
        if self._recycling is not None and len(going_on) < len(jobs):
            self._consider_recycling(slot, len(jobs) - len(going_on))
        ids, sent = [job.request.id for job in jobs], self._sent[slot.id]
        self._act(self.scheduler.reply(slot.id, frame.batch, self._loop.time(), going_on=going_on))
        self._events.batch_done(slot.name, self.name, ids, sent, replied, frame.metrics, frame.code == 200)
        self._settle_step(jobs, frame, replied, going_on)
        if slot.leaving is not None or self._idle_waiter is not None:
            self._after_work(slot)

    def _settle_step(self, jobs: list[Job], frame: Replies, replied: float, going_on: Collection[Job]) -> None:
        """Pass on the pieces of those that go on, and answer the others."""
        pieces = [reply for reply in frame.replies if jobs[reply.index] in going_on]
        if pieces:
            frame.replies = [reply for reply in frame.replies if jobs[reply.index] not in going_on]
        earlier = [job.handler_ns for job in jobs]  # steps
        self._settle(jobs, frame, replied)
        for job, handler_ns in zip(jobs, earlier, strict=True):
            job.handler_ns = handler_ns + frame.handler_ns
        if pieces:
            self._forward(jobs, Chunk(frame.batch, pieces))

    def slot_stopped(self, slot: WorkerSlot, certificate: Certificate, *, unread: int) -> None:
        """A worker is dead, and with it all that its set had come to."""
        super().slot_stopped(slot, certificate, unread=unread)
        self._sent.pop(slot.id, None)

    def cancel(self, job: Job) -> None:
        """The client of a job is gone: it is missing in the next step, if it has begun."""
        if job.place is Place.RUNNING and not job.cancelled:
            text = f"Connection to client got closed; Removing job: {job.request.id}"
            self._events.log("INFO", "wlm.ContinuousBatching", text, job.worker)
        super().cancel(job)


def _going_on(jobs: list[Job], frame: Replies) -> set[Job]:
    """Those that need a further step. Their worker has kept what they ask for: what there was of it here can go."""
    if frame.code != 200 or jobs[0].kind == DESCRIBE:
        return set()
    failed = set(frame.failed)
    going_on = {jobs[index] for index in frame.going_on if 0 <= index < len(jobs) and index not in failed}
    for job in going_on:
        job.request = Request(job.request.id, [], [], {})
    return going_on
