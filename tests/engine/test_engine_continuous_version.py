"""A model version with continuous batching on a virtual clock: streams that are made of steps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from harness.scene import MemoryWorker, Scene, scenario, settle
from modelserver.engine.job import CHUNK_LIMIT, Job, Membership, Overrun
from modelserver.errors import Cause, Certificate, RequestTimeout, WorkerError
from modelserver.wire.frames import DESCRIBE, Batch, Cancel, Chunk, Part, Replies, Reply, Request

CONTINUOUS = {"continuousBatching": True, "batchSize": 3, "maxBatchDelay": 0}


def batches(worker: MemoryWorker) -> list[tuple[str, int]]:
    """Ids of the requests of each batch that a worker got, and how many were continued."""
    frames = [frame for frame in worker.frames if isinstance(frame, Batch)]
    return [("".join(request.id for request in frame.requests), frame.continued) for frame in frames]


def step(worker: MemoryWorker, *bodies: bytes, over: Sequence[int] = (), handler_ns: int = 0) -> None:
    """Answer the last batch; all its requests go on but those at the positions `over`."""
    going_on = [index for index in range(len(bodies)) if index not in over]
    replies = [Reply(index, body) for index, body in enumerate(bodies)]
    worker.owner.received(Replies(worker.batch.id, 200, "", replies, handler_ns=handler_ns, going_on=going_on))


async def pieces(job: Job) -> list[bytes]:
    """The whole answer of a job that streams; raises what breaks it off."""
    assert job.reply is not None and job.chunks is not None
    found = [job.reply.body]
    while (piece := await job.chunks.get()) is not None:
        found.append(piece)
    return found


@scenario(yaml=CONTINUOUS)
async def test_a_stream_is_made_of_steps(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    step(worker, b"a")
    step(worker, b"b")
    step(worker, b"c", over=[0])
    assert (await scene.reply_of(job)).body == b"a"
    assert await pieces(job) == [b"a", b"b", b"c"]
    assert batches(worker) == [("0", 0), ("0", 1), ("0", 1)]
    assert scene.version.scheduler.idle


@scenario(yaml=CONTINUOUS)
async def test_an_answer_after_the_first_step_is_an_ordinary_one(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    step(worker, b"all", over=[0])
    assert (await scene.reply_of(job)).body == b"all" and job.chunks is None


@scenario(yaml=CONTINUOUS)
async def test_an_empty_last_piece_only_ends_the_stream(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    step(worker, b"a")
    step(worker, b"", over=[0])
    assert await pieces(job) == [b"a"]


@scenario(yaml=CONTINUOUS)
async def test_a_continued_request_travels_as_an_id(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    assert worker.batch.requests[0].parts == [Part("body", "", b"")]
    step(worker, b"a")
    (request,) = worker.batch.requests
    assert (request.id, request.parts, request.headers, request.extra) == ("0", [], [], {})
    assert not job.request.parts, "its worker has it"


@scenario(yaml=CONTINUOUS)
async def test_newcomers_join_between_steps(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    jobs = [scene.submit()]
    jobs += [scene.submit(), scene.submit()]
    step(worker, b"0a")
    step(worker, b"0b", b"1a", b"2a", over=[1])
    jobs.append(scene.submit())
    step(worker, b"0c", b"2b", over=[0])
    step(worker, b"2c", b"3a", over=[0, 1])
    assert batches(worker) == [("0", 0), ("012", 1), ("02", 2), ("23", 1)]
    assert await pieces(jobs[0]) == [b"0a", b"0b", b"0c"]
    assert (await scene.reply_of(jobs[1])).body == b"1a"
    assert await pieces(jobs[2]) == [b"2a", b"2b", b"2c"]
    assert [ids for ids, ok in scene.journal.batches if ok] == [["0"], ["0", "1", "2"], ["0", "2"], ["2", "3"]]


@scenario(yaml=CONTINUOUS)
async def test_pieces_within_a_step_are_part_of_the_stream(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    for letter in (b"a", b"b"):
        worker.owner.received(Chunk(worker.batch.id, [Reply(0, letter.upper())]))
        step(worker, letter)
    worker.owner.received(Chunk(worker.batch.id, [Reply(0, b"C")]))
    step(worker, b"c", over=[0])
    assert await pieces(job) == [b"A", b"a", b"B", b"b", b"C", b"c"]


@scenario(yaml=CONTINUOUS)
async def test_who_has_left_is_missing_in_the_next_step(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job, other = scene.submit(), scene.submit()
    step(worker, b"a")
    scene.version.cancel(job)
    scene.version.cancel(job)
    assert worker.frames[-1] == Cancel(worker.batch.id, ["0"])
    step(worker, b"b", b"a")
    step(worker, b"b", over=[0])
    assert batches(worker) == [("0", 0), ("01", 1), ("1", 1)]
    assert scene.journal.lines.count("INFO Connection to client got closed; Removing job: 0") == 1
    assert await pieces(other) == [b"a", b"b"]


@scenario(yaml=CONTINUOUS)
async def test_who_leaves_the_queue_was_not_running(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    scene.submit()
    waiting = scene.submit()
    scene.version.cancel(waiting)
    step(worker, b"a")
    assert batches(worker)[-1] == ("0", 1)
    assert not any("Removing job" in line for line in scene.journal.lines)


@scenario(yaml={**CONTINUOUS, "clientTimeoutInMills": 500})
async def test_a_deadline_before_the_first_piece_is_answered_at_once(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    assert (await scene.error_of(job)).status == 408
    step(worker, b"late")
    assert scene.version.scheduler.idle and len(batches(worker)) == 1


@scenario(yaml={**CONTINUOUS, "clientTimeoutInMills": 500})
async def test_a_deadline_cuts_a_stream(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    step(worker, b"a")
    await asyncio.sleep(0.6)
    with pytest.raises(RequestTimeout):
        await pieces(job)
    step(worker, b"b")
    assert scene.version.scheduler.idle


@scenario(yaml=CONTINUOUS)
async def test_an_error_fails_all_that_run_and_nobody_else(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    jobs = [scene.submit(), scene.submit()]
    step(worker, b"a")
    waiting = scene.submit()
    worker.owner.received(Replies(worker.batch.id, 503, "Prediction failed", []))
    with pytest.raises(WorkerError, match="Prediction failed"):
        await pieces(jobs[0])
    assert (await scene.error_of(jobs[1])).status == 503
    assert batches(worker)[-1] == ("2", 0)
    step(worker, b"fine", over=[0])
    assert (await scene.reply_of(waiting)).body == b"fine"


@scenario(yaml=CONTINUOUS)
async def test_a_death_fails_all_that_run_and_the_next_worker_serves_the_rest(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    jobs = [scene.submit(), scene.submit()]
    step(worker, b"a")
    waiting = scene.submit()
    worker.die(Certificate(Cause.EXIT, "exited with status 1", exit_code=1))
    with pytest.raises(WorkerError, match=r"Worker died\."):
        await pieces(jobs[0])
    assert (await scene.error_of(jobs[1])).message == "Worker died."
    await asyncio.sleep(0.01)
    replacement = scene.port.workers[-1]
    assert batches(replacement) == [("2", 0)]
    step(replacement, b"fine", over=[0])
    assert (await scene.reply_of(waiting)).body == b"fine"


@scenario(yaml=CONTINUOUS)
async def test_a_step_that_the_dead_worker_had_not_read(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    begun, fresh = scene.submit(), scene.submit()
    step(worker, b"a")
    worker.die(unread=1)
    with pytest.raises(WorkerError):
        await pieces(begun)
    await asyncio.sleep(0.01)
    step(scene.port.workers[-1], b"fine", over=[0])
    assert (await scene.reply_of(fresh)).body == b"fine"


@scenario(yaml={**CONTINUOUS, "responseTimeout": 2})
async def test_every_step_has_the_whole_response_timeout(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    for _ in range(4):
        await asyncio.sleep(1.5)
        step(worker, b"a")
    assert worker.killed is None
    await asyncio.sleep(2.1)
    assert worker.killed is not None and worker.killed.cause is Cause.RESPONSE_TIMEOUT
    with pytest.raises(WorkerError, match=r"Worker died\."):
        await pieces(job)


@scenario(yaml=CONTINUOUS)
async def test_a_describe_call_comes_between_two_steps(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    described = scene.submit(kind=DESCRIBE)
    step(worker, b"a")
    assert batches(worker)[-1] == ("1", 0)
    worker.owner.received(Replies(worker.batch.id, 200, "", [Reply(0, b"{}")], going_on=[0]))
    assert (await scene.reply_of(described)).body == b"{}" and described.chunks is None
    assert batches(worker)[-1] == ("0", 1)
    step(worker, b"b", over=[0])
    assert await pieces(job) == [b"a", b"b"]


@scenario(yaml=CONTINUOUS)
async def test_a_failing_describe_call_harms_no_stream(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    described = scene.submit(kind=DESCRIBE)
    step(worker, b"a")
    worker.owner.received(Replies(worker.batch.id, 503, "Prediction failed", []))
    assert (await scene.error_of(described)).status == 503
    step(worker, b"b", over=[0])
    assert await pieces(job) == [b"a", b"b"]


@scenario(yaml=CONTINUOUS)
async def test_a_request_that_failed_alone_does_not_go_on(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    good, bad = scene.submit(), scene.submit()
    step(worker, b"a")
    replies = [Reply(0, b"b"), Reply(1, b"no tensor", 400)]
    worker.owner.received(Replies(worker.batch.id, 200, "", replies, failed=[1], going_on=[0, 1]))
    assert (await scene.error_of(bad)).status == 400
    assert batches(worker)[-1] == ("0", 1)
    step(worker, b"c", over=[0])
    assert await pieces(good) == [b"a", b"b", b"c"]


@scenario(yaml=CONTINUOUS)
async def test_positions_of_nobody_are_passed_over(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    worker.owner.received(Replies(worker.batch.id, 200, "", [Reply(0, b"a")], going_on=[7, -1]))
    assert (await scene.reply_of(job)).body == b"a" and scene.version.scheduler.idle


@scenario(yaml=CONTINUOUS)
async def test_a_client_that_falls_behind_leaves_the_set(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    step(worker, b"a")
    step(worker, b"x" * CHUNK_LIMIT)
    step(worker, b"y")
    step(worker, b"z")
    assert scene.version.scheduler.idle
    with pytest.raises(Overrun):
        await pieces(job)


@scenario(yaml=CONTINUOUS)
async def test_a_removed_worker_finishes_its_streams(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    step(worker, b"a")
    (slot,) = scene.version.shrink(1, 10.0)
    await settle()
    assert worker.killed is None
    step(worker, b"b")
    step(worker, b"c", over=[0])
    await slot.ended
    assert await pieces(job) == [b"a", b"b", b"c"]


@scenario(yaml=CONTINUOUS)
async def test_a_drain_waits_for_streams_and_cuts_them_at_its_limit(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    short, long = scene.submit(), scene.submit()
    drain = asyncio.create_task(scene.version.drain(5.0))
    await settle()
    step(worker, b"a", over=[0])
    step(worker, b"b")
    await asyncio.sleep(4)
    assert not drain.done()
    step(worker, b"c")
    await drain
    assert (await scene.reply_of(short)).body == b"a"
    with pytest.raises(WorkerError):
        await pieces(long)


@scenario(yaml={**CONTINUOUS, "maxRequestsPerWorker": 2})
async def test_a_worker_is_recycled_after_so_many_requests_not_steps(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    first, second = scene.submit(), scene.submit()
    for _ in range(5):
        step(worker, *[b"a"] * len(worker.batch.requests))
    step(worker, b"z", b"a", over=[0])
    step(worker, b"b")
    await settle()
    assert worker.killed is None
    step(worker, b"z", over=[0])
    await asyncio.sleep(0.01)
    assert worker.killed is not None and worker.killed.cause is Cause.RECYCLED
    assert (await pieces(first))[-1] == (await pieces(second))[-1] == b"z"


@scenario(yaml=CONTINUOUS)
async def test_the_time_in_the_handler_is_that_of_all_steps(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    job = scene.submit()
    began = job.sent
    for _ in range(3):
        step(worker, b"a", handler_ns=10)
    step(worker, b"b", over=[0], handler_ns=10)
    assert (job.handler_ns, job.sent) == (40, began)


@scenario(yaml={**CONTINUOUS, "asyncCommunication": True})
async def test_asynchronous_workers_get_every_request_at_once(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    for _ in range(2):
        scene.submit()
    assert batches(worker) == [("0", 0), ("1", 0)]


def ask(scene: Scene, sequence: str) -> Job:
    """Submit a request of this sequence."""
    request = Request(str(len(scene.answers)), [Part("body", "", b"")], [], {})
    job = Job(request, "m", "default", 0.0, lambda job: scene.answers[job].set_result(job))
    job.sequence = Membership(sequence)
    scene.answers[job] = asyncio.get_running_loop().create_future()
    scene.version.submit(job)
    return job


STATEFUL = {**CONTINUOUS, "sequenceBatching": True, "maxNumSequence": 3, "maxSequenceJobQueueSize": 5}


@scenario(yaml=STATEFUL)
async def test_a_request_joins_the_stream_of_its_sequence(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    stream = ask(scene, "s")
    step(worker, b"a")
    end = ask(scene, "s")
    step(worker, b"b")
    assert batches(worker)[-1] == ("01", 1)
    told = [("ts_request_sequence_end", "s; other")]
    replies = [Reply(0, b"c"), Reply(1, b"stopped", headers=told)]
    worker.owner.received(Replies(worker.batch.id, 200, "", replies))
    assert await pieces(stream) == [b"a", b"b", b"c"]
    assert (await scene.reply_of(end)).headers == told
    assert "DEBUG Clean jobGroup: s" in scene.journal.lines
    assert scene.version.scheduler.idle


@scenario(yaml=STATEFUL)
async def test_a_step_may_end_the_sequence_of_its_stream(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    stream = ask(scene, "s")
    step(worker, b"a")
    reply = Reply(0, b"b", headers=[("ts_request_sequence_end", "s")])
    worker.owner.received(Replies(worker.batch.id, 200, "", [reply], going_on=[0]))
    assert "DEBUG Clean jobGroup: s" in scene.journal.lines
    step(worker, b"c", over=[0])
    assert await pieces(stream) == [b"a", b"b", b"c"]


@scenario(yaml=STATEFUL)
async def test_a_client_of_a_sequence_that_leaves(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    stream, other = ask(scene, "s"), ask(scene, "t")
    step(worker, b"a")
    scene.version.cancel(stream)
    step(worker, b"b", b"a")
    assert batches(worker)[-1] == ("1", 1)
    assert "INFO Connection to client got closed; Removing job: 0" in scene.journal.lines
    step(worker, b"b", over=[0])
    assert await pieces(other) == [b"a", b"b"]


@scenario(yaml=STATEFUL)
async def test_a_death_closes_the_sequences_of_streams(scene: Scene) -> None:
    (worker,) = await scene.grow(1)
    stream = ask(scene, "s")
    step(worker, b"a")
    waiting = ask(scene, "s")
    worker.die(Certificate(Cause.EXIT, "exited with status 1", exit_code=1))
    with pytest.raises(WorkerError, match=r"Worker died\."):
        await pieces(stream)
    assert (await scene.error_of(waiting)).status == 503
    await asyncio.sleep(0.01)
    again = ask(scene, "s")
    step(scene.port.workers[-1], b"fresh", over=[0])
    assert (await scene.reply_of(again)).body == b"fresh"
