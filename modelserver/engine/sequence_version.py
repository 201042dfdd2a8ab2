"""A stateful model version: each request belongs to a sequence."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Final

from modelserver.engine.job import Job, Membership
from modelserver.engine.refusals import unavailable
from modelserver.engine.scheduler import Action, Closed, NotAccepted, Opened, Refuse, Wake
from modelserver.engine.sequence_scheduler import SequenceScheduler
from modelserver.engine.slot import WorkerSlot
from modelserver.engine.version import ModelVersion
from modelserver.errors import BadRequest, Cause, Certificate, ServiceUnavailable
from modelserver.wire.frames import DESCRIBE, Chunk, Replies

_LONGEST_ID: Final = 1024  # characters

# What a request says of its sequence where it does not stand in the job yet. Raises BadRequest.
MembershipReader = Callable[[Job], Membership]


def nothing_said(job: Job) -> Membership:
    """The reader of requests that say everything in the job."""
    return Membership("")


class SequenceVersion(ModelVersion):
    """Finds out to which sequence a request belongs, tells its handler, and tells the log what becomes of sequences."""

    scheduler: SequenceScheduler
    stated: MembershipReader = staticmethod(nothing_said)

    def submit(self, job: Job) -> None:
        """Queue a job. Raises BadRequest for an id that cannot be one, and what the base class raises."""
        if job.kind == DESCRIBE:
            job.sequence = None
        else:
            self._join(job)
        super().submit(job)

    def _join(self, job: Job) -> None:
        """A request without id begins a sequence of its own; the handler finds all about it among the headers."""
        stated = job.sequence or self.stated(job)
        check_id(stated.id)
        joined = stated if stated.id else Membership(f"ts-seq-{uuid.uuid4()}", start=True, end=stated.end)
        keys = self.options.sequence_keys
        told = {keys.id: joined.id}
        if joined.start:
            told[keys.start] = "true"
        if joined.end:
            told[keys.end] = "true"
        job.sequence = joined
        job.request.extra = {**job.request.extra, **told}

    def slot_answered(self, slot: WorkerSlot, frame: Replies | Chunk) -> None:
        """A frame for a batch arrived. Sequences that the handler has ended are closed before others are sent."""
        key = self.options.sequence_keys.end.lower()
        said = [value for reply in frame.replies for name, value in reply.headers if name.lower() == key]
        if said and self.scheduler.running(slot.id, frame.batch):
            ids = [id for value in said for id in self._named(value)]
            self._act(self.scheduler.end(ids, self._loop.time()))
        super().slot_answered(slot, frame)

    def _named(self, value: str) -> list[str]:
        """The ids in a header. Clients choose theirs, and one that looks like those of others must not end them."""
        return [value] if self.scheduler.book.find(value) else [id.strip() for id in value.split(";")]

    def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if type(action) is Wake and self._wake is not None:  # only an earlier time is asked for twice
                self._wake.cancel()
                self._wake = None
        super()._act(actions)
        for action in actions:
            if type(action) is Opened:
                self._events.log("INFO", "wlm.Model", f"added jobGroup for sequenceId:{action.sequence}")
            elif type(action) is Closed:
                self._tell_closed(action)
            elif type(action) is Refuse:
                action.job.fail(unavailable(action.job, Certificate(action.cause, action.detail)))
                self._tell_if_idle()

    def _tell_closed(self, closed: Closed) -> None:
        self._events.log("DEBUG", "wlm.SequenceBatching", f"Clean jobGroup: {closed.sequence}")
        if closed.lost:
            self._events.log("INFO", "wlm.Model", f"Sequence {closed.sequence} is closed: {closed.why}")

    def _refused(self, job: Job, refusal: NotAccepted) -> ServiceUnavailable:
        if refusal.cause is Cause.SEQUENCES_FULL and job.sequence is not None:
            most = self.options.max_num_sequence
            text = f"Skip the requestId: {job.request.id} for sequence: {job.sequence.id} due to jobGroups size: "
            self._warn("wlm.Model", f"{text}{most} exceeding maxNumSequence: {most}")
        return super()._refused(job, refusal)


def check_id(id: str) -> None:
    """Raises BadRequest for what nobody means as an id: it is kept, and written to logs."""
    if len(id) > _LONGEST_ID:
        raise BadRequest(f"A sequence id has {_LONGEST_ID} characters at most, this one {len(id)}.")
    if not id.isprintable():
        raise BadRequest(f"A sequence id has printable characters only: {id!a}")
