"""A stateful model version on a virtual clock: what requests say of sequences, what clients and logs are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness.scene import MemoryWorker, Scene, scenario, settle
from modelserver.engine.job import Job, Membership
from modelserver.engine.sequence_version import SequenceVersion
from modelserver.errors import BadRequest, Cause, Certificate, ServiceUnavailable
from modelserver.settings.sequence_keys import SequenceKeys
from modelserver.wire.frames import DESCRIBE, PREDICT, Batch, Chunk, Replies, Reply, Request

STATEFUL = {
    "sequenceBatching": True,
    "maxNumSequence": 2,
    "maxSequenceJobQueueSize": 2,
    "sequenceMaxIdleMSec": 1000,
    "sequenceTimeoutMSec": 10_000,
    "maxBatchDelay": 50,
    "batchSize": 2,
}
KEYS = SequenceKeys()


class Conversation:
    """Requests of a scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        assert isinstance(scene.version, SequenceVersion)
        self.version = scene.version
        self._count = 0

    def ask(self, sequence: str = "", kind: int = PREDICT, **marks: bool) -> Job:
        """A request of which the protocol says this; without id and marks it says nothing."""
        self._count += 1
        job = Job(Request(f"r{self._count}", [], [], {"mine": "1"}), "m", "default", 0.0, self.scene._done, kind)
        if sequence or marks:
            job.sequence = Membership(sequence, **marks)
        self.scene.answers[job] = asyncio.get_running_loop().create_future()
        self.version.submit(job)
        return job


def requests(worker: MemoryWorker) -> list[list[str]]:
    """The ids of the requests of each batch that a worker got."""
    return [[request.id for request in frame.requests] for frame in worker.frames if isinstance(frame, Batch)]


def end_sequences(worker: MemoryWorker, *values: str) -> None:
    """Answer the last batch, in the words of a handler that ends sequences."""
    headers = [(KEYS.end, value) for value in values]
    replies = [Reply(index, b"", headers=headers) for index in range(len(worker.batch.requests))]
    worker.owner.received(Replies(worker.batch.id, 200, "", replies))


def ended(scene: Scene) -> list[str]:
    """The sequences that have been closed."""
    start = "DEBUG Clean jobGroup: "
    return [line.removeprefix(start) for line in scene.journal.lines if line.startswith(start)]


@scenario(yaml=STATEFUL)
async def test_the_handler_is_told_of_the_sequence(scene: Scene) -> None:
    await scene.grow(1)
    talk = Conversation(scene)
    given = talk.ask("s", start=True, end=True)
    assert given.request.extra == {"mine": "1", KEYS.id: "s", KEYS.start: "true", KEYS.end: "true"}
    assert talk.ask("s").request.extra == {"mine": "1", KEYS.id: "s"}
    made = talk.ask()
    assert made.sequence is not None and made.sequence.id.startswith("ts-seq-") and len(made.sequence.id) == 43
    assert made.request.extra == {"mine": "1", KEYS.id: made.sequence.id, KEYS.start: "true"}


@scenario(yaml=STATEFUL)
async def test_what_the_job_does_not_say_is_read(scene: Scene) -> None:
    await scene.grow(1)
    talk = Conversation(scene)
    talk.version.stated = lambda job: Membership("read")
    assert talk.ask().request.extra[KEYS.id] == "read"
    assert talk.ask("said").request.extra[KEYS.id] == "said"


@scenario(yaml=STATEFUL)
async def test_a_describe_call_belongs_to_no_sequence(scene: Scene) -> None:
    await scene.grow(1)
    talk = Conversation(scene)
    assert talk.ask("s", DESCRIBE).request.extra == {"mine": "1"}
    assert not [line for line in scene.journal.lines if "jobGroup" in line]


@pytest.mark.parametrize("id", ["x" * 1025, "a\nb", "\ud800", "\x00"])
def test_what_cannot_be_an_id_is_refused(id: str) -> None:
    @scenario(yaml=STATEFUL)
    async def refuse(scene: Scene) -> None:
        with pytest.raises(BadRequest, match="A sequence id has"):
            Conversation(scene).ask(id)
        assert scene.version.scheduler.idle

    refuse()


@scenario(yaml=STATEFUL)
async def test_sequences_open_and_close_in_the_log(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    job = talk.ask("s")
    assert "INFO added jobGroup for sequenceId:s" in scene.journal.lines
    await asyncio.sleep(0.06)
    worker.answer(b"yes")
    await scene.reply_of(job)
    await asyncio.sleep(0.9)
    assert "DEBUG Clean jobGroup: s" not in scene.journal.lines
    await asyncio.sleep(0.2)
    assert "DEBUG Clean jobGroup: s" in scene.journal.lines


@scenario(yaml=STATEFUL)
async def test_a_batch_is_not_held_up_by_a_later_time(scene: Scene) -> None:
    """The wake-up of an idle sequence is a second away when a request comes."""
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    talk.ask("s")
    await asyncio.sleep(0.06)
    worker.answer(b"yes")
    talk.ask("s")
    await asyncio.sleep(0.06)
    assert requests(worker) == [["r1"], ["r2"]]
    await asyncio.sleep(5)
    worker.answer(b"yes")
    await asyncio.sleep(0.9)
    assert "DEBUG Clean jobGroup: s" not in scene.journal.lines
    await asyncio.sleep(0.2)
    assert "DEBUG Clean jobGroup: s" in scene.journal.lines


@scenario(yaml=STATEFUL)
async def test_too_many_sequences(scene: Scene) -> None:
    await scene.grow(1)
    talk = Conversation(scene)
    talk.ask("a")
    talk.ask("b")
    with pytest.raises(ServiceUnavailable, match="please check if it is closed, or expired") as refused:
        talk.ask("c")
    assert refused.value.certificate == Certificate(Cause.SEQUENCES_FULL, "2 sequences are open (maxNumSequence)")
    skipped = "WARN Skip the requestId: r3 for sequence: c due to jobGroups size: 2 exceeding maxNumSequence: 2"
    assert skipped in scene.journal.lines


@scenario(yaml=STATEFUL)
async def test_requests_of_a_sequence_that_expires(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    running, waiting = talk.ask("s"), talk.ask("s")
    await asyncio.sleep(10.1)
    error = await scene.error_of(waiting)
    assert (error.status, error.certificate) == (
        503,
        Certificate(Cause.SEQUENCE_CLOSED, "sequence s has expired (sequenceTimeoutMSec)"),
    )
    worker.answer(b"yes")
    assert (await scene.reply_of(running)).body == b"yes"


@scenario(yaml=STATEFUL)
async def test_a_worker_that_dies_and_comes_back(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    running, waiting, other = talk.ask("s"), talk.ask("s"), talk.ask("t")
    assert requests(worker) == [["r1", "r3"]]
    worker.die()
    assert (await scene.error_of(running)).message == (await scene.error_of(other)).message == "Worker died."
    error = await scene.error_of(waiting)
    assert error.certificate == Certificate(Cause.SEQUENCE_CLOSED, "sequence s is closed: its worker died")
    await asyncio.sleep(0.1)
    again = talk.ask("s")
    await asyncio.sleep(0.1)
    scene.port.workers[-1].answer(b"new")
    assert (await scene.reply_of(again)).body == b"new"


@scenario(yaml=STATEFUL)
async def test_a_client_that_leaves_frees_its_place(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    talk.ask("s")
    await asyncio.sleep(0.06)
    waiting = [talk.ask("s"), talk.ask("s")]
    with pytest.raises(ServiceUnavailable):
        talk.ask("s")
    talk.version.cancel(waiting[0])
    talk.ask("s")
    worker.answer(b"")
    await asyncio.sleep(0.06)
    assert requests(worker)[1] == ["r3"]


@scenario(yaml=STATEFUL)
async def test_a_handler_ends_sequences_by_a_header_of_its_answer(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    first, second = talk.ask("s"), talk.ask("t")
    waiting = talk.ask("s")
    headers = [(KEYS.end.upper(), "s; t")]
    worker.owner.received(Replies(worker.batch.id, 200, "", [Reply(0, b"", headers=headers), Reply(1, b"")]))
    assert (await scene.reply_of(first)).headers == headers, "the client is told, too"
    await scene.reply_of(second)
    error = await scene.error_of(waiting)
    assert error.certificate == Certificate(Cause.SEQUENCE_CLOSED, "sequence s is closed: its handler ended it")
    assert [line for line in scene.journal.lines if "Clean" in line] == [
        "DEBUG Clean jobGroup: s",
        "DEBUG Clean jobGroup: t",
    ]


@scenario(yaml={**STATEFUL, "maxNumSequence": 5, "batchSize": 3})
async def test_an_id_that_looks_like_those_of_others_ends_only_its_own_sequence(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    for id in ("s", "t", "s;t", " s", "s; "):
        talk.ask(id)
    end_sequences(worker, "s;t")
    assert ended(scene) == ["s;t"]
    assert len(talk.version.scheduler.book) == 4
    await asyncio.sleep(0.06)
    end_sequences(worker, " s", "s; ")
    assert ended(scene) == ["s;t", " s", "s; "]
    talk.ask("s")
    await asyncio.sleep(0.06)
    end_sequences(worker, "s ; t;u")
    assert ended(scene) == ["s;t", " s", "s; ", "s", "t"]


@scenario(yaml=STATEFUL)
async def test_an_answer_to_a_batch_that_is_unknown_ends_nothing(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    talk.ask("s")
    worker.owner.received(Chunk(77, [Reply(0, b"", headers=[(KEYS.end, "s")])]))
    assert not [line for line in scene.journal.lines if "Clean" in line]


@scenario(yaml={**STATEFUL, "clientTimeoutInMills": 500})
async def test_deadlines_hold_for_waiting_requests(scene: Scene) -> None:
    talk = Conversation(scene)
    await scene.grow(1)
    jobs = [talk.ask("s"), talk.ask("s")]
    await asyncio.sleep(0.6)
    assert [(await scene.error_of(job)).status for job in jobs] == [408, 408]


@scenario(yaml=STATEFUL)
async def test_a_removed_worker_finishes_what_was_accepted(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    jobs = [talk.ask("s"), talk.ask("s")]
    await asyncio.sleep(0.06)
    scene.version.shrink(1, 10.0)
    for job in jobs:
        assert worker.killed is None
        worker.answer(b"yes")
        assert (await scene.reply_of(job)).body == b"yes"
    await settle()
    assert worker.dead


@scenario(yaml=STATEFUL)
async def test_a_drain_serves_what_was_accepted_and_refuses_the_rest(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    first, second, third = talk.ask("s"), talk.ask("s"), talk.ask("s")
    await asyncio.sleep(0.06)
    draining = asyncio.create_task(scene.version.drain(1.0))
    await asyncio.sleep(0.1)
    worker.answer(b"1")
    await asyncio.sleep(0.1)
    await draining
    assert (await scene.reply_of(first)).body == b"1"
    assert (await scene.error_of(second)).message == "Worker died.", "it was running when the time was over"
    assert (await scene.error_of(third)).status == 503


@scenario(yaml=STATEFUL)
async def test_a_drain_is_over_when_the_time_of_what_waits_is_over(scene: Scene) -> None:
    talk = Conversation(scene)
    scene.port.manual = True
    await scene.grow(1)
    waiting = talk.ask("s")
    began = asyncio.get_running_loop().time()
    await scene.version.drain(60.0)
    assert asyncio.get_running_loop().time() - began < 11, "its sequence has expired after 10 s"
    certificate = (await scene.error_of(waiting)).certificate
    assert certificate is not None and certificate.cause is Cause.SEQUENCE_CLOSED


@scenario(yaml={**STATEFUL, "maxRequestsPerWorker": 2})
async def test_a_recycled_worker_closes_its_sequences(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)

    async def serve(job: Job, worker: MemoryWorker) -> None:
        await asyncio.sleep(0.06)
        worker.answer(b"")
        await scene.reply_of(job)

    await serve(talk.ask("s"), worker)
    await serve(talk.ask("s"), worker)
    await asyncio.sleep(0.1)
    assert worker.dead and "DEBUG Clean jobGroup: s" in scene.journal.lines
    assert "INFO Sequence s is closed: its worker was removed" in scene.journal.lines
    await serve(talk.ask("s"), scene.port.workers[-1])
    assert sum("added jobGroup" in line for line in scene.journal.lines) == 2


@scenario(yaml={**STATEFUL, "maxRequestsPerWorker": 1})
async def test_recycling_waits_for_accepted_requests(scene: Scene) -> None:
    talk = Conversation(scene)
    (worker,) = await scene.grow(1)
    jobs = [talk.ask("s"), talk.ask("s")]
    await asyncio.sleep(0.06)
    worker.answer(b"1")
    assert requests(worker) == [["r1"], ["r2"]]
    worker.answer(b"2")
    assert [(await scene.reply_of(job)).body for job in jobs] == [b"1", b"2"]
    await asyncio.sleep(0.1)
    assert worker.dead


@scenario(yaml=STATEFUL)
async def test_the_queue_is_that_of_all_sequences_and_of_what_belongs_to_none(scene: Scene) -> None:
    await scene.grow(1)
    status: Any = scene.version.status(loaded_at_startup=False)
    assert (status.queue_remaining, status.queue_pending) == (2 * 2 + 100, 0)
    talk = Conversation(scene)
    talk.ask("s")
    talk.ask("s")
    assert scene.version.status(loaded_at_startup=False).queue_pending == 1
