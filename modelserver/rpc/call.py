"""One call on its way through a method, and what it leaves behind."""

from __future__ import annotations

import asyncio
import re
import time
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import grpc
from grpc import aio

from modelserver.dialect.ports import Telemetry
from modelserver.engine.job import Job
from modelserver.errors import MalformedMessage, MessageTooLarge
from modelserver.rpc.inflation import PACKED, inflated
from modelserver.wire.frames import DESCRIBE

_SHORTEST: Final = 0.001  # seconds; a job without patience is one without deadline
# Seconds in which we hear that there is no message because the client has left: this task is cancelled then.
_AFTERTHOUGHT: Final = 0.01
_PEER = re.compile(r"ipv[46]:(.*)")
_PEERS: Final = 1024  # whose addresses are kept as access lines have them: clients make many calls on a connection


class Call:
    """A call, and the job made from it, if any. Messages are bytes."""

    __slots__ = ("_limit", "_peer", "context", "job", "received", "target", "telemetry")

    def __init__(self, target: str, context: Any, telemetry: Telemetry, limit: int) -> None:
        self.target = target  # `package.Service/Method`
        self.context = context  # of grpcio
        self.received = time.monotonic()
        self.job: Job | None = None  # once the engine has accepted it
        self.telemetry = telemetry
        self._limit = limit  # bytes of a message
        self._peer: str = context.peer()  # once the client has left, nobody knows it any more

    async def read(self) -> bytes | None:
        """The next message; None when the client sends no more. Raises MessageTooLarge, MalformedMessage."""
        message: bytes = await self.context.read()
        if message is not aio.EOF:
            return await inflated(message, self._limit) if message[:1] in PACKED else message
        # A call that grpcio itself has ended has no peer any more; one whose client has left still has.
        if not self.context.peer():
            raise MessageTooLarge
        return None

    async def read_one(self) -> bytes:
        """The only message. Raises MessageTooLarge, MalformedMessage, the latter also if there is none."""
        message = await self.read()
        if message is None:
            await asyncio.sleep(_AFTERTHOUGHT)
            raise MalformedMessage("The request has no message.")
        return message

    async def write(self, message: bytes) -> None:
        """Send a message; waits for a client that reads slowly."""
        await self.context.write(message)

    @property
    def patience(self) -> float:
        """Seconds that the client still waits; 0: without limit."""
        left: float | None = self.context.time_remaining()
        return 0.0 if left is None else max(left, _SHORTEST)

    @property
    def shown(self) -> bytes:
        """The last `authorization` of the metadata, or b""."""
        values = [value for key, value in self.context.invocation_metadata() if key == "authorization"]
        return values[-1].encode("latin-1", "replace") if values else b""

    def record(self, code: grpc.StatusCode) -> None:
        """Tell telemetry that the call is over."""
        remote, number = remote_of(self._peer), code.value[0]
        facts = (remote, "gRPC", self.target, "HTTP/2.0", number, self.received, time.monotonic())
        job = self.job
        if job is None or job.kind == DESCRIBE:
            self.telemetry.request_done(*facts)
        else:
            ok = code is grpc.StatusCode.OK
            self.telemetry.request_done(*facts, *_facts_of(job), ok)

    def record_job(self, job: Job, *, ok: bool) -> None:
        """Tell telemetry that one of many jobs is over."""
        self.telemetry.request_done("", "", "", "", 0, job.created, time.monotonic(), *_facts_of(job), ok)


def _facts_of(job: Job) -> tuple[str, str, str, str, float, float]:
    return job.worker, job.model, job.label, job.request.id, job.sent, job.replied


@lru_cache(_PEERS)
def remote_of(peer: str) -> str:
    """A client's address as access lines have it."""
    found = _PEER.fullmatch(peer)
    return f"/{unquote(found[1])}" if found else peer
