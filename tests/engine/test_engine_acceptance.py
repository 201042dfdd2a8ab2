"""Which jobs are accepted, and what those that are not are told: tickets, room in the queue, dead workers."""

from __future__ import annotations

import asyncio

import pytest

from harness.scene import Scene, scenario, settle
from modelserver.errors import Cause, Certificate, ServerError, ServiceUnavailable
from modelserver.wire.frames import Batch


def refusal(scene: Scene, *, size: int = 0) -> Certificate:
    """The cause of a job that is not accepted."""
    with pytest.raises(ServiceUnavailable, match="has no worker to serve inference request") as raised:
        scene.submit(size=size)
    assert raised.value.certificate is not None
    return raised.value.certificate


def cause_of(error: ServerError) -> Certificate:
    assert error.certificate is not None
    return error.certificate


@scenario(yaml={"useJobTicket": True})
async def test_with_tickets_only_idle_workers_get_jobs(scene: Scene) -> None:
    await scene.grow(2)
    scene.submit()
    scene.submit()
    assert refusal(scene).cause is Cause.NO_TICKET
    assert "INFO There are no job tickets available" in scene.journal.lines
    scene.port.workers[0].answer(b"")
    scene.submit()
    assert refusal(scene).cause is Cause.NO_TICKET


@scenario(yaml={"useJobTicket": True})
async def test_tickets_do_not_multiply_when_workers_restart(scene: Scene) -> None:
    await scene.grow(2)
    scene.port.workers[1].die()
    await asyncio.sleep(0.1)
    assert len(scene.port.workers) == 3
    scene.submit()
    scene.submit()
    refusal(scene)


@scenario(yaml={"useJobTicket": True})
async def test_there_is_no_ticket_while_workers_load(scene: Scene) -> None:
    scene.port.manual = True
    await scene.grow(1)
    refusal(scene)


@scenario(yaml={"jobQueueSize": 2})
async def test_a_full_queue_says_so(scene: Scene) -> None:
    await scene.grow(1)
    for _ in range(3):
        scene.submit()
    cause = refusal(scene)
    assert (cause.cause, cause.detail) == (Cause.QUEUE_FULL, "2 requests wait already (jobQueueSize)")


@scenario()
async def test_the_queue_is_bounded_in_bytes_too(scene: Scene) -> None:
    """The scene's queue holds 1000 bytes."""
    (worker,) = await scene.grow(1)
    scene.submit(size=5000)  # runs at once: it does not wait
    large = scene.submit(size=5000)  # nothing else waits: it fits whatever its size
    cause = refusal(scene, size=1)
    assert (cause.cause, cause.detail) == (Cause.QUEUE_FULL, "5000 bytes of requests wait already (job_queue_bytes)")
    worker.answer(b"")
    assert worker.batch.requests == [large.request]
    for _ in range(2):
        scene.submit(size=500)
    refusal(scene, size=1)
    scene.submit(size=0)


@scenario()
async def test_jobs_that_leave_give_their_bytes_back(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    running, waiting = scene.submit(size=900), scene.submit(size=900)
    scene.version.cancel(waiting)
    scene.submit(size=900)
    refusal(scene, size=200)
    worker.die(unread=True)  # the first one waits again
    assert not running.cancelled
    refusal(scene, size=1)
    for job in scene.version.scheduler.clear():
        job.cancel()
    scene.submit(size=1000)
    assert refusal(scene, size=1).cause is Cause.QUEUE_FULL


@scenario()
async def test_without_workers_the_operator_is_told_what_to_do(scene: Scene) -> None:
    cause = refusal(scene)
    assert (cause.cause, cause.detail) == (Cause.NO_WORKER, "the model version has no workers: scale it up")


@scenario(yaml={"maxRetryTimeoutInSec": 0})
async def test_when_no_worker_will_come_back_every_job_learns_why(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    running, waiting = scene.submit(), scene.submit()
    worker.die(Certificate(Cause.SIGNAL, "killed by SIGSEGV", signal="SIGSEGV"))
    assert (await scene.error_of(running)).status == 500
    error = await scene.error_of(waiting)
    assert isinstance(error, ServiceUnavailable)
    for cause in (cause_of(error), refusal(scene)):
        assert (cause.cause, cause.detail, cause.next_retry) == (Cause.SIGNAL, "killed by SIGSEGV", None)
    (status,) = scene.version.status(loaded_at_startup=False).workers
    assert status.gave_up


@scenario(yaml={"maxRetryTimeoutInSec": 10, "minWorkers": 2, "maxWorkers": 2})
async def test_health_names_the_worker_that_does_not_come_back(scene: Scene) -> None:
    _, second = await scene.grow(2)
    assert scene.version.healthy()
    assert scene.version.ailments() == []
    scene.port.manual = True
    second.die()
    await asyncio.sleep(11)
    assert not scene.version.healthy()
    (ailment,) = scene.version.ailments()
    assert (ailment.model, ailment.version, ailment.worker) == ("m", "1.0", "9001")
    assert ailment.certificate.detail == "exited with status 1"


@scenario()
async def test_a_death_names_the_time_of_the_next_attempt(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    running = scene.submit()
    worker.die(Certificate(Cause.EXIT, "process exited with status 3", exit_code=3))
    assert cause_of(await scene.error_of(running)).next_retry == 0.0
    line = "W-9000-m_1.0 died: process exited: process exited with status 3 (next attempt in 0 s)"
    assert f"ERROR {line}" in scene.journal.lines
    assert f"stderr {line}" in scene.journal.lines, "the model log says it too"

    scene.port.manual = True
    await asyncio.sleep(0.1)
    scene.port.workers[-1].die()
    await asyncio.sleep(0.1)
    (status,) = scene.version.status(loaded_at_startup=False).workers
    assert status.next_retry is not None
    assert 0.8 < status.next_retry < 1.0


@scenario(yaml={"maxRequestsPerWorker": 3, "batchSize": 2, "maxBatchDelay": 0})
async def test_a_worker_that_has_served_its_share_is_replaced_between_two_batches(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    jobs = [scene.submit() for _ in range(5)]
    worker.answer(b"0")
    worker.answer(b"1", b"2")
    assert (await scene.reply_of(jobs[2])).body == b"2"
    assert sum(isinstance(frame, Batch) for frame in worker.frames) == 2, "the next batch waits for the next process"
    await asyncio.sleep(0.01)
    assert worker.killed == Certificate(Cause.RECYCLED, "served 3 requests (limit 3)")
    fresh = scene.port.workers[-1]
    fresh.answer(b"3", b"4")
    assert (await scene.reply_of(jobs[4])).body == b"4"
    assert "INFO Worker 9000 is recycled: served 3 requests (limit 3)" in scene.journal.lines
    assert not [line for line in scene.journal.lines if "recovery" in line or "died" in line]


@scenario(yaml={"maxWorkerMemoryInMB": 200})
async def test_a_worker_that_has_grown_too_large_is_replaced(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    scene.submit()
    worker.answer(b"")
    await asyncio.sleep(2)
    assert len(scene.port.workers) == 1
    worker.resident = 300 << 20
    scene.submit()
    worker.answer(b"")
    await asyncio.sleep(0.01)
    assert "INFO Worker 9000 is recycled: holds 300 MiB of memory (limit 200 MiB)" in scene.journal.lines
    scene.submit()
    assert scene.port.workers[-1].batch.requests


@scenario(yaml={"maxRequestsPerWorker": 1})
async def test_one_worker_after_the_other_is_replaced(scene: Scene) -> None:
    first, second = await scene.grow(2)
    scene.port.manual = True
    scene.submit()
    scene.submit()
    first.answer(b"")
    second.answer(b"")
    await asyncio.sleep(0.01)
    assert (first.dead, second.dead) == (True, False)
    scene.submit()
    scene.port.workers[-1].load()
    second.answer(b"")
    await asyncio.sleep(0.01)
    assert second.dead


@scenario(yaml={"maxRequestsPerWorker": 1})
async def test_a_fresh_worker_that_does_not_load_is_a_failure_like_any_other(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    scene.port.manual = True
    scene.submit()
    worker.answer(b"")
    await asyncio.sleep(0.01)
    scene.port.workers[-1].die()
    await settle()
    assert "INFO Retry worker: 9000 in 1 seconds." in scene.journal.lines
