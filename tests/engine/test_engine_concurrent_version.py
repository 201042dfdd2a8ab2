"""A model version with asynchronous workers on a virtual clock: many unanswered batches, each with its own time."""

from __future__ import annotations

import asyncio

import pytest

from harness.scene import MemoryWorker, Scene, scenario, settle
from modelserver.engine.slot import State
from modelserver.errors import Cause, Certificate, WorkerError
from modelserver.wire.frames import Batch, Cancel, Chunk, Replies, Reply

ASYNC = {"asyncCommunication": True}


def batches(worker: MemoryWorker) -> list[Batch]:
    """All that a worker got."""
    return [frame for frame in worker.frames if isinstance(frame, Batch)]


def answer(worker: MemoryWorker, request_id: str, body: bytes) -> None:
    """Answer the batch that holds this request alone."""
    (batch,) = [batch for batch in batches(worker) if [request.id for request in batch.requests] == [request_id]]
    worker.owner.received(Replies(batch.id, 200, "", [Reply(0, body)]))


@scenario(yaml=ASYNC)
async def test_a_worker_gets_every_job_at_once_and_answers_in_any_order(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    jobs = [scene.submit() for _ in range(3)]
    assert len(batches(worker)) == 3
    for name in "201":
        answer(worker, name, name.encode())
    assert [(await scene.reply_of(job)).body for job in jobs] == [b"0", b"1", b"2"]
    assert scene.version.scheduler.idle


@scenario(yaml={**ASYNC, "batchSize": 2, "maxBatchDelay": 500})
async def test_a_batch_that_forms_leaves_after_the_delay(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    for _ in range(3):
        scene.submit()
    assert [len(batch.requests) for batch in batches(worker)] == [2]
    await asyncio.sleep(0.6)
    assert [len(batch.requests) for batch in batches(worker)] == [2, 1]


@scenario(yaml=ASYNC)
async def test_an_error_is_that_of_its_own_request(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    good, bad = scene.submit(), scene.submit()
    worker.owner.received(Replies(worker.batch.id, 418, "no", []))
    answer(worker, "0", b"yes")
    assert (await scene.error_of(bad)).status == 418
    assert (await scene.reply_of(good)).body == b"yes"


@scenario(yaml=ASYNC)
async def test_a_death_fails_all_that_was_sent(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    jobs = [scene.submit() for _ in range(10)]
    worker.die(Certificate(Cause.EXIT, "exited with status 1", exit_code=1))
    errors = [await scene.error_of(job) for job in jobs]
    assert {(error.status, error.message) for error in errors} == {(500, "Worker died.")}
    await asyncio.sleep(0.01)
    replacement = scene.port.workers[-1]
    job = scene.submit()
    answer(replacement, "10", b"yes")
    assert (await scene.reply_of(job)).body == b"yes"
    (slot,) = scene.version.slots.values()
    assert slot.state is State.LOADED


@scenario(yaml=ASYNC)
async def test_what_the_dead_worker_never_read_is_served_by_the_next_one(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    jobs = [scene.submit() for _ in range(3)]
    worker.die(unread=2)
    assert (await scene.error_of(jobs[0])).status == 500
    await asyncio.sleep(0.01)
    for name in "12":
        answer(scene.port.workers[-1], name, b"yes")
    assert [(await scene.reply_of(job)).body for job in jobs[1:]] == [b"yes"] * 2


@scenario(yaml={**ASYNC, "responseTimeout": 2})
async def test_a_request_that_takes_too_long_fails_alone_while_its_worker_serves_others(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    started = asyncio.get_running_loop().time()
    slow = scene.submit()
    await asyncio.sleep(1.5)
    scene.submit()
    answer(worker, "1", b"alive")
    error = await scene.error_of(slow)
    assert (error.status, error.message) == (500, "Backend worker did not respond in given time")
    assert error.certificate is not None and error.certificate.cause is Cause.RESPONSE_TIMEOUT
    assert asyncio.get_running_loop().time() - started < 2.1
    assert worker.killed is None
    assert worker.frames[-1] == Cancel(batches(worker)[0].id, ["0"])
    assert "ERROR No reply within responseTimeout of 2 s: 0" in scene.journal.lines
    assert scene.journal.batches == [(["1"], True), (["0"], False)]
    answer(worker, "0", b"late")
    assert scene.version.scheduler.idle


@scenario(yaml={**ASYNC, "responseTimeout": 2})
async def test_a_worker_that_says_nothing_at_all_is_killed(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    answered = scene.submit()
    answer(worker, "0", b"yes")
    await scene.reply_of(answered)
    jobs = [scene.submit() for _ in range(2)]
    worker.dies_by_itself = False
    await asyncio.sleep(2.1)
    late = scene.submit()
    worker.die(worker.killed)
    errors = [await scene.error_of(job) for job in jobs]
    assert [error.message for error in errors] == ["Worker died."] * 2
    await asyncio.sleep(0.01)
    answer(scene.port.workers[-1], "3", b"by the next one")
    assert (await scene.reply_of(late)).body == b"by the next one"
    assert worker.killed is not None and worker.killed.cause is Cause.RESPONSE_TIMEOUT
    told = [line for line in scene.journal.lines if line.startswith("ERROR Number or consecutive")]
    assert told == ["ERROR Number or consecutive unsuccessful inference 1"]


@scenario(yaml={**ASYNC, "responseTimeout": 2})
async def test_every_piece_gives_its_own_request_more_time(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    silent, streamed = scene.submit(), scene.submit()
    for _ in range(4):
        await asyncio.sleep(1)
        worker.owner.received(Chunk(worker.batch.id, [Reply(0, b"piece")]))
    assert (await scene.error_of(silent)).message == "Backend worker did not respond in given time"
    worker.owner.received(Replies(worker.batch.id, 200, "", [Reply(0, b"end", streamed=True)]))
    assert (await scene.reply_of(streamed)).body == b"piece"
    assert streamed.chunks is not None
    assert [await streamed.chunks.get() for _ in range(5)] == [b"piece", b"piece", b"piece", b"end", None]


@scenario(yaml={**ASYNC, "responseTimeout": 2})
async def test_a_stream_that_stands_still_is_cut_alone(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    worker.owner.received(Chunk(worker.batch.id, [Reply(0, b"piece")]))
    await asyncio.sleep(1)
    scene.submit()
    answer(worker, "1", b"alive")
    await asyncio.sleep(1.5)
    assert worker.killed is None and job.chunks is not None
    assert job.reply is not None and job.reply.body == b"piece"
    with pytest.raises(WorkerError, match="did not respond in given time"):
        await job.chunks.get()


@scenario(yaml={**ASYNC, "clientTimeoutInMills": 500})
async def test_deadlines_of_clients_hold_for_each_request(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    other = scene.submit()
    answer(worker, "1", b"yes")
    assert (await scene.reply_of(other)).body == b"yes"
    assert (await scene.error_of(job)).status == 408
    assert worker.frames[-1] == Cancel(batches(worker)[0].id, ["0"])


@scenario(yaml=ASYNC)
async def test_a_removed_worker_finishes_what_it_has(scene: Scene) -> None:
    first, second = await scene.grow(2)
    jobs = [scene.submit() for _ in range(4)]
    (slot,) = scene.version.shrink(1, 10.0)
    answer(second, "1", b"yes")
    await settle()
    assert second.killed is None, "it has another one"
    late = scene.submit()
    answer(first, "4", b"late")
    answer(second, "3", b"yes")
    await slot.ended
    assert [(await scene.reply_of(job)).body for job in (jobs[1], jobs[3], late)] == [b"yes", b"yes", b"late"]


@scenario(yaml={**ASYNC, "maxRequestsPerWorker": 2})
async def test_a_worker_is_recycled_once_it_has_answered_everything(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    jobs = [scene.submit() for _ in range(3)]
    answer(worker, "0", b"yes")
    answer(worker, "1", b"yes")
    waiting = scene.submit()
    assert worker.killed is None and len(batches(worker)) == 3
    answer(worker, "2", b"yes")
    await asyncio.sleep(0.01)
    answer(scene.port.workers[-1], "3", b"fresh")
    assert [(await scene.reply_of(job)).body for job in (*jobs, waiting)] == [b"yes"] * 3 + [b"fresh"]


@scenario(yaml=ASYNC)
async def test_a_drain_waits_for_every_batch(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    jobs = [scene.submit() for _ in range(2)]
    draining = asyncio.create_task(scene.version.drain(10.0))
    answer(worker, "1", b"yes")
    await settle()
    assert not draining.done()
    answer(worker, "0", b"yes")
    await draining
    assert [(await scene.reply_of(job)).body for job in jobs] == [b"yes"] * 2


@scenario(yaml={**ASYNC, "startupTimeout": 3})
async def test_a_load_that_takes_too_long_has_its_own_words(scene: Scene) -> None:
    scene.port.manual = True
    (worker,) = await scene.grow(1)
    worker.owner.spawned(4711, ["python"], "")
    worker.connect()
    await asyncio.sleep(3.1)
    assert worker.killed is not None and worker.killed.cause is Cause.LOAD_TIMEOUT
    assert any(line.endswith("Worker did not load the model within 3 seconds") for line in scene.journal.lines)
