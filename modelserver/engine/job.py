"""One accepted call, from the translator that builds it to the reply that resolves it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple, Protocol

from modelserver.errors import ServerError
from modelserver.wire.frames import PREDICT, Reply, Request

# Bytes of unread chunks a slow client may hold before it is cut.
CHUNK_LIMIT: Final = 16 << 20


_logger = logging.getLogger(__name__)


class Overrun(Exception):
    """The client reads more slowly than the handler writes; its chunks are dropped and its job is cancelled."""


class Owner(Protocol):
    """Whoever took a job, and can be told that its client left."""

    def cancel(self, job: Job) -> None:
        """The client of a job is gone."""


class Place(IntEnum):
    """Where a job is between submit and reply."""

    QUEUED = 0
    FORMING = 1  # in a batch that still waits for company
    RUNNING = 2  # with a worker
    DONE = 3


class Membership(NamedTuple):
    """What a request says of its sequence; an id of "" is one that the server is to make."""

    id: str
    start: bool = False
    end: bool = False


class Job:
    """A predict, explain or describe call.

    `done` is called once, on the event loop, when either `reply` or `error` is set; never for a cancelled job. A plain
    call rather than a future: a future would hand the reply over one turn of the loop later, and cost more than the
    scheduler. If the reply is only a first piece (`chunks` is not None then), the others come through `chunks`.
    """

    __slots__ = (
        "cancelled",
        "chunks",
        "created",
        "done",
        "error",
        "expired",
        "handler_ns",
        "kind",
        "label",
        "model",
        "owner",
        "place",
        "replied",
        "reply",
        "request",
        "sent",
        "sequence",
        "size",
        "tick",
        "timeout",
        "worker",
    )

    def __init__(
        self,
        request: Request,
        model: str,
        label: str,
        created: float,
        done: Callable[[Job], None],
        kind: int = PREDICT,
    ) -> None:
        self.request = request
        self.model = model
        self.label = label  # version as the client wrote it, or "default"
        self.kind = kind
        self.created = created  # seconds, monotonic clock
        self.sent = 0.0  # when its batch went to a worker; 0 while it waits
        self.replied = 0.0  # when the last reply arrived
        self.handler_ns = 0  # that its batch spent in the handler
        self.worker = ""  # name of the worker that got it: `W-9000-digits_1.0`
        self.size = 0  # bytes of the body
        self.sequence: Membership | None = None  # counts for versions with sequences only, and then has an id
        self.timeout = 0.0  # seconds that the client waits; 0: without limit
        self.tick: dict[Job, None] | None = None  # where it stands in the wheel of deadlines
        self.place = Place.QUEUED
        self.cancelled = False
        self.expired = False  # its deadline has passed: it was answered, and what its worker still says comes too late
        self.owner: Owner | None = None  # the model version that took it
        self.done = done
        self.reply: Reply | None = None
        self.error: ServerError | None = None
        self.chunks: Chunks | None = None

    def succeed(self, reply: Reply) -> None:
        """The first reply is there."""
        self.reply = reply
        self._finish()

    def fail(self, error: ServerError) -> None:
        """There will be no (more) reply."""
        if self.chunks is not None:
            self.leave_wheel()
            self.chunks.fail(error)
        else:
            self.error = error
            self._finish()

    def take_error(self) -> Exception:
        """Why there is no reply, to be raised: an error that the job still held would refer back to it for ever."""
        error, self.error = self.error, None
        return error or RuntimeError("a job is over without reply or error")

    def end(self) -> None:
        """The last of its chunks has been put."""
        self.leave_wheel()
        if self.chunks is not None:
            self.chunks.end()

    def cancel(self) -> None:
        """The client is gone: nobody wants to know any more."""
        self.cancelled = True
        self.done = _ignore
        self.leave_wheel()

    def leave_wheel(self) -> None:
        """It is over before its deadline."""
        if self.tick is not None:
            del self.tick[self]
            self.tick = None

    def _finish(self) -> None:
        if self.tick is not None and self.chunks is None:  # the deadline of a stream is that of its last chunk
            self.leave_wheel()
        done, self.done = self.done, _ignore  # whoever asked refers to the job: no cycle may outlive the answer
        try:
            done(self)
        except Exception:  # the worker, in whose report we are, must not suffer for it
            _logger.exception("The client of request %s could not be told", self.request.id)


def tell(waiter: asyncio.Future[Job], job: Job) -> None:
    """A `done` for whoever awaits a job: cancelled a moment ago, it may not have withdrawn the job yet."""
    if not waiter.done():
        waiter.set_result(job)


def _ignore(job: Job) -> None:
    pass


class Chunks:
    """The pieces of a streamed reply after the first one, bounded in bytes; one reader."""

    __slots__ = ("_ended", "_error", "_held", "_pieces", "_waiter", "limit")

    def __init__(self, limit: int = CHUNK_LIMIT) -> None:
        self.limit = limit
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, piece: bytes) -> None:
        """Raises `Overrun` when the reader is too far behind; the stream has failed then."""
        self._held += len(piece)
        if self._held > self.limit:
            overrun = Overrun(f"client is {self._held} bytes behind")
            self._pieces.clear()
            self.fail(overrun)
            raise overrun
        self._pieces.append(piece)
        self._wake()

    def end(self) -> None:
        """The last piece has been put."""
        self._ended = True
        self._wake()

    def fail(self, error: ServerError | Overrun) -> None:
        """The stream broke: the reader gets what is there, then the error."""
        self._error = error
        self.end()

    async def get(self) -> bytes | None:
        """The next piece; None at the end. Raises the error that broke the stream."""
        while not self._pieces:
            if self._error is not None:
                raise self._take_error()
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = self._pieces.popleft()
        self._held -= len(piece)
        return piece

    def _take_error(self) -> BaseException:
        """Once: an error that was raised refers to its frames, these refer to the chunks, and so for ever."""
        error, self._error = self._error, None
        assert error is not None
        return error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
