"""A request that is over leaves nothing behind that holds its body: no cycle of references, whatever its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from rest_doubles import Connection, Service, post, predicting, settle, streamed

from harness.garbage import cycles
from modelserver.engine.job import Job
from modelserver.errors import Cause, Certificate, ServerError, ServiceUnavailable, WorkerError
from modelserver.rest.call import Call
from modelserver.rest.exchange import Exchange
from modelserver.wire.frames import Reply

BODY = b"x" * 100


def failure() -> WorkerError:
    return WorkerError(500, "Worker died.", certificate=Certificate(Cause.EXIT, "process exited with status 1"))


async def answered(here: Service) -> None:
    await here.connect().feed(post(100) + BODY)


async def failed(here: Service) -> None:
    here.engine.answer = lambda job: failure()
    await here.connect().feed(post(100) + BODY)


async def refused(here: Service) -> None:
    here.engine.refusal = ServiceUnavailable("no")
    await here.connect().feed(post(100) + BODY)


async def unknown(here: Service) -> None:
    await here.connect().feed(post(100).replace(b"/m ", b"/other ") + BODY)


async def gone_while_it_ran(here: Service) -> None:
    here.engine.answer = lambda job: None
    connection = here.connect()
    await connection.feed(post(100) + BODY)
    await connection.leave()


async def gone_within_the_body(here: Service) -> None:
    connection = here.connect()
    await connection.feed(post(1000) + BODY)
    await connection.leave()


async def gone_between_pipelined_ones(here: Service) -> None:
    here.engine.answer = lambda job: None
    connection = here.connect()
    await connection.feed((post(100) + BODY) * 3)
    await connection.leave()


async def broken_body(here: Service) -> None:
    await here.connect().feed(
        b"POST /predictions/m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n"
    )


async def bad_deadline(here: Service) -> None:
    await here.connect().feed(b"GET /predictions/m HTTP/1.1\r\nX-Request-Timeout-Ms: soon\r\n\r\n")


async def streams(here: Service, end: Callable[[Job, Connection], Awaitable[None]]) -> None:
    def begin(job: Job) -> Reply:
        streamed(job, b"second")
        return Reply(0, b"first")

    here.engine.answer = begin
    connection = here.connect()
    await connection.feed(post(100) + BODY)
    await end(here.engine.jobs[0], connection)
    await settle()


async def streamed_whole(here: Service) -> None:
    async def end(job: Job, connection: Connection) -> None:
        job.end()

    await streams(here, end)


async def stream_broke(here: Service) -> None:
    async def end(job: Job, connection: Connection) -> None:
        job.fail(failure())

    await streams(here, end)


async def gone_in_a_stream(here: Service) -> None:
    async def end(job: Job, connection: Connection) -> None:
        await connection.leave()

    await streams(here, end)


@pytest.mark.parametrize(
    "request_of",
    [
        answered,
        failed,
        refused,
        unknown,
        gone_while_it_ran,
        gone_within_the_body,
        gone_between_pipelined_ones,
        broken_body,
        bad_deadline,
        streamed_whole,
        stream_broke,
        gone_in_a_stream,
    ],
)
def test_nothing_is_left_in_a_cycle(request_of: Callable[[Service], Awaitable[None]]) -> None:
    async def main() -> list[object]:
        here = predicting()
        await answered(here)  # what is made once is made now
        forget(here)
        with cycles(Job, Call, Exchange, ServerError) as left:
            await request_of(here)
            forget(here)
            await settle()
        return left

    assert asyncio.run(main()) == []


def forget(here: Service) -> None:
    """The doubles remember more than a server does."""
    here.engine.jobs.clear()
    here.engine.cancelled.clear()
    here.engine.refusal = None
