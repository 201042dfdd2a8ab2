"""A model version and its slots on a virtual clock, with workers that live in memory."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import pytest

from harness import clock
from harness.scene import Scene, scenario, settle
from modelserver.engine.job import Job, tell
from modelserver.engine.slot import State
from modelserver.errors import Cause, Certificate, ServiceUnavailable, WorkerError
from modelserver.wire.frames import (
    DESCRIBE,
    Batch,
    Cancel,
    Chunk,
    Failure,
    Hello,
    Load,
    Replies,
    Reply,
)


@scenario()
async def test_a_job_goes_to_a_loaded_worker_and_its_reply_comes_back(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    assert [request.id for request in worker.batch.requests] == ["0"]
    assert job.worker == "W-9000-m_1.0"
    worker.answer(b"yes")
    assert (await scene.reply_of(job)).body == b"yes"
    assert scene.journal.batches == [(["0"], True)]


@scenario()
async def test_the_log_says_why_a_worker_was_not_forked(scene: Scene) -> None:
    scene.port.manual = True
    (worker,) = await scene.grow(1)
    worker.owner.spawned(4711, ["python"], "/m/json.py is already imported")
    assert "INFO Worker 9000 runs a fresh interpreter: /m/json.py is already imported" in scene.journal.lines


@scenario()
async def test_jobs_wait_for_a_worker_that_still_loads(scene: Scene) -> None:
    scene.port.manual = True
    (worker,) = await scene.grow(1)
    job = scene.submit()
    worker.load()
    worker.answer(b"yes")
    assert (await scene.reply_of(job)).body == b"yes"


@scenario()
async def test_without_workers_there_is_no_service(scene: Scene) -> None:
    with pytest.raises(ServiceUnavailable, match=r'^Model "m" has no worker to serve inference request') as raised:
        scene.submit()
    assert raised.value.message.endswith("or exceeds maxSequenceJobQueueSize")
    with pytest.raises(ServiceUnavailable, match=r'^Model "m" Version 1.0" has no worker'):
        scene.submit("1.0")


@scenario(yaml={"jobQueueSize": 2})
async def test_a_full_queue_refuses(scene: Scene) -> None:
    await scene.grow(1)
    for _ in range(3):
        scene.submit()
    with pytest.raises(ServiceUnavailable):
        scene.submit()
    status = scene.version.status(loaded_at_startup=False)
    assert (status.queue_remaining, status.queue_pending) == (0, 2)


@scenario()
async def test_a_crash_fails_the_running_batch_with_its_cause_and_the_rest_waits_for_the_next_process(
    scene: Scene,
) -> None:
    (worker,) = await scene.grow(1)
    running, waiting = scene.submit(), scene.submit()
    worker.die(Certificate(Cause.SIGNAL, "killed by SIGSEGV", signal="SIGSEGV"))
    error = await scene.error_of(running)
    assert (error.status, error.message) == (500, "Worker died.")
    assert error.certificate is not None and error.certificate.signal == "SIGSEGV"
    await settle()
    assert "INFO Retry worker: 9000 in 0 seconds." in scene.journal.lines
    await asyncio.sleep(0.01)
    replacement = scene.port.workers[-1]
    assert (replacement.spec.slot, replacement.spec.generation) == (9000, 2)
    replacement.answer(b"yes")
    assert (await scene.reply_of(waiting)).body == b"yes"
    assert "INFO Auto recovery succeeded, reset recoveryStartTS" in scene.journal.lines


@scenario()
async def test_a_batch_the_dead_worker_never_read_runs_on_the_next_one(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    worker.die(unread=True)
    await asyncio.sleep(0.01)
    scene.port.workers[-1].answer(b"yes")
    assert (await scene.reply_of(job)).body == b"yes"


@scenario()
async def test_out_of_memory_is_507(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    worker.die(Certificate(Cause.OUT_OF_MEMORY, "killed by SIGKILL"))
    assert (await scene.error_of(job)).status == 507


@scenario(response_timeout=2)
async def test_an_overdue_reply_kills_the_worker_and_names_the_limit(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    started = asyncio.get_running_loop().time()
    error = await scene.error_of(job)
    assert 2.0 <= asyncio.get_running_loop().time() - started < 4.1
    assert error.certificate is not None and error.certificate.cause is Cause.RESPONSE_TIMEOUT
    assert worker.killed is not None
    assert "ERROR Number or consecutive unsuccessful inference 1" in scene.journal.lines


@scenario(response_timeout=2)
async def test_an_overdue_describe_has_its_own_words(scene: Scene) -> None:
    await scene.grow(1)
    job = scene.submit(kind=DESCRIBE)
    assert (await scene.error_of(job)).message == "Failed to get customized model matadata."


@scenario(response_timeout=2)
async def test_every_chunk_starts_the_response_timeout_anew(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    for piece in (b"a", b"b", b"c"):
        await asyncio.sleep(1.5)
        worker.owner.received(Chunk(worker.batch.id, [Reply(0, piece)]))
    worker.owner.received(Replies(worker.batch.id, 200, "", [Reply(0, b"d", streamed=True)]))
    assert (await scene.reply_of(job)).body == b"a"
    assert job.chunks is not None
    assert [await job.chunks.get() for _ in range(4)] == [b"b", b"c", b"d", None]
    assert worker.killed is None


@scenario()
async def test_a_stream_that_breaks_gives_what_was_there_and_then_the_error(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    for piece in (b"a", b"b"):
        worker.owner.received(Chunk(worker.batch.id, [Reply(0, piece)]))
    worker.die()
    assert job.chunks is not None
    assert await job.chunks.get() == b"b"
    with pytest.raises(WorkerError):
        await job.chunks.get()


@scenario()
async def test_a_reader_that_falls_behind_is_cut_and_its_job_cancelled(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    for _ in range(4):
        worker.owner.received(Chunk(worker.batch.id, [Reply(0, bytes(6 << 20))]))
    assert job.cancelled
    assert worker.frames[-1] == Cancel(worker.batch.id, ["0"])
    worker.owner.received(Replies(worker.batch.id, 200, "", [Reply(0, b"", streamed=True)]))
    follow_up = scene.submit()
    worker.answer(b"still serving")
    assert (await scene.reply_of(follow_up)).body == b"still serving"


@scenario()
async def test_a_failed_batch_fails_all_its_jobs_alike(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    failure = Failure("", "ValueError: no")
    worker.owner.received(Replies(worker.batch.id, 503, "Prediction failed", [], failure=failure))
    error = await scene.error_of(job)
    assert (error.status, error.message, error.type) == (503, "Prediction failed", "InternalServerException")
    assert scene.journal.batches == [(["0"], False)]


@pytest.mark.parametrize(
    "frame",
    [
        Replies(1, 200, "", []),
        Replies(1, 200, "", [Reply(1, b"")]),
        Replies(1, 200, "", [Reply(0, b""), Reply(0, b"")]),
        Chunk(1, [Reply(-1, b"")]),
    ],
)
def test_replies_to_other_requests_end_the_worker_and_leave_no_job_unanswered(frame: Replies | Chunk) -> None:
    async def scene() -> None:
        here = Scene()
        (worker,) = await here.grow(1)
        job = here.submit()
        worker.owner.received(frame)
        error = await here.error_of(job)
        assert error.certificate is not None and error.certificate.cause is Cause.PROTOCOL

    clock.run(scene())


@scenario()
async def test_an_unknown_cause_of_a_failure_is_no_certificate(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    worker.owner.received(Replies(worker.batch.id, 503, "Prediction failed", [], failure=Failure("?", "x")))
    assert (await scene.error_of(job)).certificate is None


@scenario(startup_timeout=3)
async def test_a_load_that_takes_too_long_is_ended(scene: Scene) -> None:
    scene.port.manual = True
    (worker,) = await scene.grow(1)
    worker.owner.connected(Hello(9000, 1, 0, 1, "", ""))
    await asyncio.sleep(3.1)
    assert worker.killed is not None and worker.killed.cause is Cause.LOAD_TIMEOUT
    assert any("Backend worker did not respond in given time" in line for line in scene.journal.lines)


@scenario(yaml={"maxRetryTimeoutInSec": 8})
async def test_a_model_that_never_loads_is_retried_then_given_up_and_says_so(scene: Scene) -> None:
    scene.port.manual = True
    await scene.grow(1)
    scene.version.min_workers = 1
    begin, attempts = asyncio.get_running_loop().time(), []
    waiting = scene.submit()
    for _ in range(100):
        worker = scene.port.workers[-1]
        if not worker.dead:
            attempts.append(asyncio.get_running_loop().time() - begin)
            worker.die()
        assert scene.version.healthy() == (asyncio.get_running_loop().time() - begin < 8)
        await asyncio.sleep(0.5)
    assert [round(at) for at in attempts] == [0, 1, 2, 4, 7, 12]
    assert (await scene.error_of(waiting)).status == 503
    with pytest.raises(ServiceUnavailable):
        scene.submit()


@scenario()
async def test_permanent_causes_are_not_retried_and_waiting_jobs_learn_the_cause(scene: Scene) -> None:
    scene.port.manual = True
    (worker,) = await scene.grow(1)
    waiting = scene.submit()
    worker.die(Certificate(Cause.HANDLER_IMPORT, "SyntaxError in handler.py"))
    error = await scene.error_of(waiting)
    assert error.status == 503
    assert error.certificate is not None and error.certificate.cause is Cause.HANDLER_IMPORT
    await asyncio.sleep(1000)
    assert len(scene.port.workers) == 1


@scenario()
async def test_shrinking_removes_the_newest_and_lets_it_finish(scene: Scene) -> None:
    first, second = await scene.grow(2)
    jobs = [scene.submit(), scene.submit()]
    (removed,) = scene.version.shrink(1, 10)
    assert removed.id == 9001
    assert [worker.id for worker in scene.version.status(loaded_at_startup=False).workers] == ["9000"]
    assert second.killed is None
    second.answer(b"done")
    assert (await scene.reply_of(jobs[1])).body == b"done"
    await removed.ended
    assert second.dead and not first.dead


@scenario()
async def test_a_removed_worker_that_does_not_finish_is_ended(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    (removed,) = scene.version.shrink(1, 10)
    await removed.ended
    assert worker.killed is not None and worker.killed.detail == "still busy after 10 s"
    assert (await scene.error_of(job)).message == "Worker died."


@scenario()
async def test_a_worker_removed_while_loading_never_serves(scene: Scene) -> None:
    scene.port.manual = True
    (worker,) = await scene.grow(1)
    (removed,) = scene.version.shrink(1, 10)
    worker.load()
    await removed.ended
    assert removed.state is State.SCALED_DOWN
    assert not scene.version.slots


@scenario()
async def test_drain_finishes_running_and_waiting_work(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    jobs = [scene.submit(), scene.submit()]
    drained = asyncio.ensure_future(scene.version.drain(10))
    await settle()
    worker.answer(b"1")
    worker.answer(b"2")
    await drained
    assert [(await scene.reply_of(job)).body for job in jobs] == [b"1", b"2"]
    assert worker.dead


@scenario()
async def test_drain_gives_up_after_its_limit(scene: Scene) -> None:
    await scene.grow(1)
    running, waiting = scene.submit(), scene.submit()
    await scene.version.drain(0)
    assert (await scene.error_of(running)).message == "Worker died."
    assert (await scene.error_of(waiting)).status == 503


@scenario()
async def test_a_client_that_leaves_frees_its_place(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    running, waiting = scene.submit(), scene.submit()
    scene.version.cancel(waiting)
    scene.version.cancel(running)
    scene.version.cancel(running)
    assert [type(frame) for frame in worker.frames] == [Load, Batch, Cancel]
    worker.answer(b"late")
    assert not any(answer.done() for answer in scene.answers.values())
    assert len([frame for frame in worker.frames if isinstance(frame, Batch)]) == 1


@scenario()
async def test_answers_to_a_batch_that_was_given_up_are_ignored(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    worker.owner.received(Replies(99, 200, "", [Reply(0, b"stray")]))
    job = scene.submit()
    worker.answer(b"own")
    assert (await scene.reply_of(job)).body == b"own"


@scenario()
async def test_a_client_that_cannot_be_told_does_not_harm_the_worker(scene: Scene) -> None:
    (worker,) = await scene.grow(1)

    def fails(job: Job) -> None:
        raise RuntimeError("its connection is gone")

    deaf = scene.submit()
    deaf.done = fails
    logging.disable(logging.CRITICAL)
    try:
        worker.answer(b"first")
    finally:
        logging.disable(logging.NOTSET)
    following = scene.submit()
    worker.answer(b"second")
    assert (await scene.reply_of(following)).body == b"second"


@scenario()
async def test_a_waiter_that_was_cancelled_in_the_same_moment_is_passed_over(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    waiter: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
    job = scene.submit()
    job.done = partial(tell, waiter)
    waiter.cancel()
    worker.answer(b"too late")
    assert waiter.cancelled()
