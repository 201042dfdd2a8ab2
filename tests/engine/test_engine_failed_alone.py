"""Jobs that fail alone, though they share a batch with others."""

from __future__ import annotations

from harness.scene import Scene, scenario
from modelserver.errors import BadRequest, Cause, InflatedBodyTooLarge, WorkerError
from modelserver.wire.frames import Failure, Replies, Reply


@scenario(batch_size=4, max_batch_delay=0)
async def test_others_of_the_batch_are_served(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    first = scene.submit()  # goes at once, and leaves the others time to meet
    jobs = [scene.submit() for _ in range(4)]
    worker.answer(b"first")
    await scene.reply_of(first)
    replies = [Reply(0, b"zero"), Reply(1, b"bad", 400), Reply(2, "grö\u00df".encode(), 413), Reply(3, b"odd", 500)]
    worker.owner.received(Replies(worker.batch.id, 200, "", replies, failed=[3, 1, 2]))
    assert (await scene.reply_of(jobs[0])).body == b"zero"
    errors = [await scene.error_of(job) for job in jobs[1:]]
    assert [type(error) for error in errors] == [BadRequest, InflatedBodyTooLarge, WorkerError]
    assert [(error.status, error.message) for error in errors] == [(400, "bad"), (413, "grö\u00df"), (500, "odd")]
    assert all(job.replied > 0 for job in jobs)
    assert scene.journal.batches[-1][1]


@scenario(batch_size=2, max_batch_delay=0)
async def test_others_of_the_batch_fail_for_another_reason(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    first = scene.submit()
    alone, other = scene.submit(), scene.submit()
    worker.answer(b"first")
    await scene.reply_of(first)
    failure = Failure(str(Cause.OUT_OF_MEMORY), "no room")
    replies = Replies(worker.batch.id, 507, "Out of resources", [Reply(0, b"bad", 400)], failure=failure, failed=[0])
    worker.owner.received(replies)
    assert (await scene.error_of(alone)).message == "bad"
    error = await scene.error_of(other)
    assert (error.status, error.message) == (507, "Out of resources")
    assert error.certificate is not None and error.certificate.cause is Cause.OUT_OF_MEMORY


@scenario()
async def test_a_client_that_has_left_is_not_told(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    scene.version.cancel(job)
    worker.owner.received(Replies(worker.batch.id, 200, "", [Reply(0, b"bad", 400)], failed=[0]))
    assert not scene.answers[job].done()
    following = scene.submit()
    worker.answer(b"yes")
    assert (await scene.reply_of(following)).body == b"yes"


@scenario()
async def test_a_failure_of_no_request_ends_the_worker(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    worker.owner.received(Replies(worker.batch.id, 503, "no", [Reply(5, b"bad", 400)], failed=[5]))
    assert (await scene.error_of(job)).message == "Worker died."
    assert worker.killed is not None and worker.killed.cause is Cause.PROTOCOL
