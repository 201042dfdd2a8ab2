"""Clients that stop waiting: the wheel of deadlines, and what becomes of their jobs."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from harness.scene import Scene, scenario
from modelserver.engine.deadlines import TICK, Deadlines, Wheel
from modelserver.engine.job import Job
from modelserver.errors import Cause, RequestTimeout
from modelserver.wire.frames import Cancel, Chunk, Failure, Replies, Reply, Request


def job(name: str = "a") -> Job:
    return Job(Request(name, [], [], {}), "m", "default", 0.0, lambda job: None)


@given(st.lists(st.floats(0, 10), min_size=1), st.lists(st.floats(0, 11)))
def test_every_job_expires_once_and_never_early(deadlines: list[float], looks: list[float]) -> None:
    wheel = Wheel()
    jobs = {job(): deadline for deadline in deadlines}
    for waiting, deadline in jobs.items():
        wheel.add(waiting, deadline)
    for now in sorted([*looks, 20.0]):
        due = [waiting for waiting in jobs if jobs[waiting] <= now - TICK]
        expired = wheel.expired(now)
        assert all(jobs.pop(gone) <= now for gone in expired)
        assert not [late for late in due if late in jobs]
    assert not jobs
    assert wheel.next() is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_a_job_that_is_over_leaves_nothing_behind(entries: list[tuple[float, bool]]) -> None:
    wheel = Wheel()
    stay = []
    for deadline, over in entries:
        waiting = job()
        wheel.add(waiting, deadline)
        if over:
            waiting.cancel()
        else:
            stay.append(waiting)
    first = wheel.next()
    assert (first is None) == (not stay)
    assert set(wheel.expired(2.0)) == set(stay)
    assert not wheel._ticks
    assert not wheel._order


@scenario()
async def test_the_timer_follows_the_earliest_deadline(scene: Scene) -> None:
    expired: list[tuple[str, float]] = []
    loop = asyncio.get_running_loop()
    begin = loop.time()
    deadlines = Deadlines(lambda job: expired.append((job.request.id, round(loop.time() - begin, 2))))
    for name, timeout in (("slow", 3.0), ("fast", 1.0), ("medium", 2.0)):
        deadlines.add(job(name), timeout)
    answered = job("answered")
    deadlines.add(answered, 0.5)
    answered.succeed(Reply(0, b""))
    await asyncio.sleep(5)
    assert [name for name, _ in expired] == ["fast", "medium", "slow"]
    assert all(0 <= at - due <= 2 * TICK for (_, at), due in zip(expired, (1, 2, 3), strict=True))


@scenario(yaml={"clientTimeoutInMills": 1500})
async def test_a_waiting_job_is_answered_at_its_deadline_and_never_runs(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    scene.submit(timeout=60.0)
    waiting = scene.submit(timeout=1.0)
    error = await scene.error_of(waiting)
    assert isinstance(error, RequestTimeout)
    assert (error.status, error.message) == (408, "Inference request timed out after 1000 ms.")
    assert error.certificate is not None
    assert error.certificate.cause is Cause.DEADLINE
    assert error.certificate.detail == "deadline passed while the request was waiting in the queue"
    assert "WARN Drop inference request 1 due to client timeout" in scene.journal.lines
    worker.answer(b"a")
    assert [request.id for request in worker.batch.requests] == ["0"]
    assert scene.version.scheduler.idle


@scenario(yaml={"clientTimeoutInMills": 1500})
async def test_a_running_job_is_answered_at_its_deadline_and_its_worker_lives_on(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    began = asyncio.get_running_loop().time()
    late = scene.submit()
    error = await scene.error_of(late)
    assert 1.5 <= asyncio.get_running_loop().time() - began < 1.6
    assert (error.status, error.message) == (408, "Inference request timed out after 1500 ms.")
    assert error.certificate is not None
    assert error.certificate.detail == "deadline passed while the request was with worker W-9000-m_1.0"
    assert worker.frames[-1] == Cancel(1, ["0"])

    following = scene.submit()
    worker.answer(b"too late")
    assert "WARN Drop response for inference request 0 due to client timeout" in scene.journal.lines
    worker.answer(b"in time")
    assert (await scene.reply_of(following)).body == b"in time"
    assert worker.killed is None


@scenario(yaml={"clientTimeoutInMills": 100})
async def test_a_late_failure_is_dropped_with_its_own_line(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    await scene.error_of(scene.submit())
    worker.owner.received(Replies(worker.batch.id, 503, "Prediction failed", [], failure=Failure("", "ValueError: x")))
    await scene.error_of(scene.submit())
    worker.die()
    lines = [line for line in scene.journal.lines if "Drop" in line]
    assert lines == [
        "WARN Drop error response for inference request 0 due to client timeout",
        "WARN Drop error response for inference request 1 due to client timeout",
    ]


@scenario(yaml={"batchSize": 4, "maxBatchDelay": 1000, "clientTimeoutInMills": 300})
async def test_a_batch_whose_jobs_have_all_expired_is_not_sent(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    forming = [scene.submit(), scene.submit()]
    for expired in forming:
        assert (await scene.error_of(expired)).status == 408
    await asyncio.sleep(2)
    assert len(worker.frames) == 1, "only the load"
    scene.submit(timeout=0.0)
    await asyncio.sleep(0.1)
    assert scene.version.scheduler.waiting == 0


@scenario()
async def test_a_request_may_shorten_but_not_lengthen_the_deadline_of_the_model(scene: Scene) -> None:
    await scene.grow(1)
    assert scene.submit(timeout=5.0).timeout == 5.0
    assert scene.submit().tick is None, "no deadline at all"


@scenario(yaml={"clientTimeoutInMills": 2000})
async def test_the_shorter_deadline_counts(scene: Scene) -> None:
    await scene.grow(1)
    assert [scene.submit(timeout=timeout).timeout for timeout in (1.0, 5.0, 0.0)] == [1.0, 2.0, 2.0]


@scenario(yaml={"clientTimeoutInMills": 1000})
async def test_a_stream_is_cut_at_its_deadline(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    stream = scene.submit()
    worker.owner.received(Chunk(worker.batch.id, [Reply(0, b"first")]))
    assert (await scene.reply_of(stream)).body == b"first"
    assert stream.chunks is not None
    try:
        await stream.chunks.get()
    except RequestTimeout as error:
        assert error.message == "Inference request timed out after 1000 ms."
    else:
        raise AssertionError("the stream went on")
    assert worker.frames[-1] == Cancel(1, ["0"])


@scenario(yaml={"clientTimeoutInMills": 1000})
async def test_a_stream_that_ends_in_time_has_no_deadline_any_more(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    stream = scene.submit()
    worker.owner.received(Chunk(worker.batch.id, [Reply(0, b"first")]))
    worker.answer(b"last")
    assert stream.tick is None
    await asyncio.sleep(2)
    assert not stream.expired


@scenario(yaml={"clientTimeoutInMills": 1000})
async def test_a_client_that_left_is_not_told_of_its_deadline(scene: Scene) -> None:
    await scene.grow(1)
    gone = scene.submit()
    scene.version.cancel(gone)
    await asyncio.sleep(2)
    assert not gone.expired
    assert not [line for line in scene.journal.lines if "Drop" in line]
