"""A model version whose workers are asynchronous: each may owe many replies, and each batch has its own time."""

from __future__ import annotations

from modelserver.engine.overdue import BatchWatch, Debt, Watch
from modelserver.engine.refusals import overdue
from modelserver.engine.slot import WorkerSlot
from modelserver.engine.version import ModelVersion
from modelserver.errors import Cause, Certificate
from modelserver.wire.frames import Chunk, Replies


class ConcurrentVersion(ModelVersion):
    """Fails a batch that is overdue alone; its worker is killed only if nothing at all came from it for as long."""

    def _watch(self) -> Watch[WorkerSlot]:
        self._heard: dict[int, float] = {}  # when a worker was heard last; seconds, loop clock
        self._debts = BatchWatch(self.options.response_timeout, self._batch_overdue)
        return self._debts

    def slot_answered(self, slot: WorkerSlot, frame: Replies | Chunk) -> None:
        """A frame for a batch arrived."""
        self._heard[slot.id] = self._loop.time()
        if type(frame) is Replies:
            self._debts.settle(frame.batch)
        super().slot_answered(slot, frame)

    def slot_stopped(self, slot: WorkerSlot, certificate: Certificate, *, unread: int) -> None:
        """A worker is dead, and owes nothing any more."""
        self._heard.pop(slot.id, None)
        self._debts.forget(slot)
        super().slot_stopped(slot, certificate, unread=unread)

    def _batch_overdue(self, debt: Debt[WorkerSlot]) -> None:
        slot, timeout = debt.worker, self.options.response_timeout
        self._debts.settle(debt.batch)
        if self._loop.time() - self._heard.get(slot.id, 0.0) >= timeout:
            self._debts.forget(slot)
            self._act(self.scheduler.retire(slot.id, self._loop.time()))  # new work is for others
            self._reply_overdue(slot)
            return
        jobs = list(self.scheduler.running(slot.id, debt.batch))
        ids = [job.request.id for job in jobs]
        self._events.log(
            "ERROR", "wlm.WorkerThread", f"No reply within responseTimeout of {timeout} s: {', '.join(ids)}", slot.name
        )
        certificate = Certificate(
            Cause.RESPONSE_TIMEOUT, f"no reply within responseTimeout of {timeout} s; worker {slot.name} goes on"
        )
        for job in jobs:
            if not job.cancelled:
                self._give_up(job, overdue(job, certificate))
        self._act(self.scheduler.reply(slot.id, debt.batch, self._loop.time()))
        if jobs:
            self._events.batch_done(slot.name, self.name, ids, jobs[0].sent, 0.0, (), False)
        self._after_work(slot)
