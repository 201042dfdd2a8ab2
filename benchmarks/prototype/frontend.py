"""Prototype frontend: HTTP in, frames over a Unix socket to one worker per model, HTTP out.

python -m benchmarks.prototype.frontend PORT NAME=ARCHIVE:BATCH_SIZE...
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from benchmarks.prototype.frames import PREFIX, Reply, Request, decode_replies, frame

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

POLL = 0.05  # seconds between looks for a worker's socket


class Link(asyncio.Protocol):
    """Reads frames and hands each decoded batch of replies to the dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer
        buffer += data
        start = 0
        while len(buffer) - start >= PREFIX:
            end = start + PREFIX + int.from_bytes(buffer[start : start + PREFIX], "little")
            if len(buffer) < end:
                break
            self.dispatcher.resolve(decode_replies(buffer[start + PREFIX : end]))
            start = end
        if start:
            del buffer[:start]


class Dispatcher:
    """A queue in front of one worker: whenever the worker is free it gets what waits, up to the batch size."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.queue: deque[Request] = deque()
        self.waiting: dict[int, asyncio.Future[Reply]] = {}
        self.busy = False
        self.last_id = 0

    async def start(self, archive: str) -> None:
        path = Path(tempfile.mkdtemp(prefix="prototype-")) / "worker.sock"
        command = [sys.executable, "-m", "benchmarks.prototype.worker", str(path), archive]
        self.worker = await asyncio.create_subprocess_exec(*command)
        while not path.exists():  # noqa: ASYNC110 - once, before anything is served
            await asyncio.sleep(POLL)
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_unix_connection(lambda: Link(self), str(path))

    def submit(self, mime: str, body: bytes) -> asyncio.Future[Reply]:
        self.last_id += 1
        future = self.waiting[self.last_id] = asyncio.get_running_loop().create_future()
        self.queue.append(Request(self.last_id, mime, body))
        self.dispatch()
        return future

    def dispatch(self) -> None:
        if self.queue and not self.busy:
            self.busy = True
            self.transport.write(frame([self.queue.popleft() for _ in range(min(self.batch_size, len(self.queue)))]))

    def resolve(self, replies: list[Reply]) -> None:
        self.busy = False
        for reply in replies:
            future = self.waiting.pop(reply.id)
            if not future.done():
                future.set_result(reply)
        self.dispatch()


class Frontend:
    """The ASGI application: `/predictions/<name>` for every dispatcher; 404 while a model is unknown."""

    def __init__(self) -> None:
        self.dispatchers: dict[str, Dispatcher] = {}

    async def start(self, models: Sequence[str]) -> None:
        for model in models:
            name, _, source = model.partition("=")
            archive, _, batch_size = source.rpartition(":")
            dispatcher = Dispatcher(int(batch_size))
            await dispatcher.start(archive)
            self.dispatchers[f"/predictions/{name}"] = dispatcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        dispatcher = self.dispatchers.get(scope["path"])
        if dispatcher is None:
            await respond(send, 404, b"")
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        mime = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        reply = await dispatcher.submit(mime.decode("latin-1"), body)
        await respond(send, 200, reply.body)


async def respond(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def main(port: int, models: Sequence[str]) -> None:
    frontend = Frontend()
    await frontend.start(models)
    config = uvicorn.Config(
        frontend,
        port=port,
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2:]))
