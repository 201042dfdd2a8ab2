"""Clients that count every answer and every missing one; a process of their own, `python -m benchmarks.crowd LOAD`.

wrk is faster, but it hides a request that is never answered, and it reads no bodies.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop

PATIENCE = 10.0  # seconds that a client waits for an answer
WATCH_INTERVAL = 0.1  # seconds between two looks for clients that have waited too long
RETRY_INTERVAL = 0.1  # seconds before a client that found nobody listening tries again
BEGUN = "begun"


class CrowdFailed(Exception):
    """The clients' process ended without a tally."""


@dataclass(frozen=True)
class Load:
    """What the clients send. The body is `text` so many times; a good answer begins with `answer`. Times in seconds."""

    url: str
    clients: int
    seconds: float
    mime: str
    text: str
    answer: str
    copies: int = 1
    pause: float = 0.0  # between an answer and the client's next request
    vanishing: int = 0  # clients beside the others that leave before their answer, over and over
    patience: float = PATIENCE

    @property
    def request(self) -> bytes:
        target = urlsplit(self.url)
        body = self.text.encode() * self.copies
        lines = [
            f"POST {target.path} HTTP/1.1",
            f"Host: {target.netloc}",
            f"Content-Type: {self.mime}",
            f"Content-Length: {len(body)}",
        ]
        return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


@dataclass
class Tally:
    """What came of the requests."""

    good: int = 0
    failures: dict[int, int] = field(default_factory=dict)  # by status; 200 stands for a wrong body
    unexplained: int = 0  # failures whose body names no cause
    cut: int = 0  # connections that ended before the answer
    given_up: int = 0  # requests without an answer within the patience
    refused: int = 0  # connections that could not be made
    vanished: int = 0
    slowest: float = 0.0  # seconds, of the answers

    @property
    def failed(self) -> int:
        """Answers that are not as they should be."""
        return sum(self.failures.values())

    @property
    def unanswered(self) -> int:
        return self.cut + self.given_up

    @property
    def lost(self) -> int:
        """Requests without a good answer."""
        return self.failed + self.unanswered

    def add(self, status: int, body: bytes, good: bool, seconds: float) -> None:
        """Count an answer."""
        self.slowest = max(self.slowest, seconds)
        if good:
            self.good += 1
            return
        self.failures[status] = self.failures.get(status, 0) + 1
        if b'"cause"' not in body:
            self.unexplained += 1


class Visitor(asyncio.Protocol, ABC):
    """One connection; `left` is done when it has ended."""

    transport: asyncio.Transport

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.left = crowd.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = transport  # type: ignore[assignment]
        self.begin()

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the loop."""
        self.end()
        self.left.set_result(None)

    @abstractmethod
    def begin(self) -> None:
        """The connection is there."""

    @abstractmethod
    def end(self) -> None:
        """The connection is gone."""


class Client(Visitor):
    """Sends its next request when it has its answer."""

    def __init__(self, crowd: Crowd) -> None:
        super().__init__(crowd)
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._asked: float | None = None  # when the request left whose answer is missing

    def begin(self) -> None:
        self.crowd.waiting.add(self)
        self._ask()

    def end(self) -> None:
        self.crowd.waiting.discard(self)
        if self._asked is not None:
            self.crowd.tally.cut += 1

    def give_up_if_late(self, now: float) -> None:
        if self._asked is not None and now - self._asked > self.crowd.load.patience:
            self._asked = None
            self.crowd.tally.given_up += 1
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()  # no answer: `end` counts it

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._asked is None:
            self.transport.abort()  # an answer to nothing
            return
        crowd, body, status = self.crowd, bytes(self._body), self._parser.get_status_code()
        good = status == 200 and body.startswith(crowd.answer)
        crowd.tally.add(status, body, good, time.perf_counter() - self._asked)
        self._asked = None
        self._body.clear()
        if not self._parser.should_keep_alive():
            self.transport.close()
        elif crowd.load.pause:
            crowd.loop.call_later(crowd.load.pause, self._ask)
        else:
            self._ask()

    def _ask(self) -> None:
        if self.crowd.over or self.transport.is_closing():
            self.transport.close()
            return
        self._asked = time.perf_counter()
        self.transport.write(self.crowd.request)


class Deserter(Visitor):
    """Leaves in the middle of its body, or with its request complete but unanswered, in turns."""

    def begin(self) -> None:
        crowd = self.crowd
        crowd.deserted += 1
        whole = crowd.deserted % 2 == 0
        self.transport.write(crowd.request if whole else crowd.request[: len(crowd.request) // 2])
        crowd.loop.call_later(crowd.load.pause, self.transport.abort)

    def end(self) -> None:
        self.crowd.tally.vanished += 1


class Crowd:
    """All clients of one load."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.request = load.request
        target = urlsplit(load.url)
        self._address = (str(target.hostname), target.port or 80)
        self.answer = load.answer.encode()
        self.tally = Tally()
        self.loop = asyncio.get_running_loop()
        self.over = False  # no client sends any more
        self.waiting: set[Client] = set()
        self.deserted = 0

    async def run(self) -> Tally:
        """Send for the load's time, then wait for the answers that are missing."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self.load.clients):
                tasks.create_task(self._visit(Client))
            for _ in range(self.load.vanishing):
                tasks.create_task(self._visit(Deserter))
            tasks.create_task(self._watch())
            await asyncio.sleep(self.load.seconds)
            self.over = True
        return self.tally

    async def _visit(self, kind: type[Visitor]) -> None:
        """One connection after the other."""
        while not self.over:
            try:
                _, visitor = await self.loop.create_connection(lambda: kind(self), *self._address)
            except OSError:
                self.tally.refused += 1
                await asyncio.sleep(RETRY_INTERVAL)
            else:
                await visitor.left

    async def _watch(self) -> None:
        while self.waiting or not self.over:
            await asyncio.sleep(WATCH_INTERVAL)
            now = time.perf_counter()
            for client in list(self.waiting):
                client.give_up_if_late(now)


def nothing() -> None:
    """What is done meanwhile if nothing is."""


def run_crowd(load: Load, meanwhile: Callable[[], None] = nothing) -> Tally:
    """Send from a process of its own, and do something else beside it. Raises CrowdFailed."""
    command = [sys.executable, "-m", "benchmarks.crowd", msgspec.json.encode(load).decode()]
    root = Path(__file__).resolve().parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline().decode().strip() == BEGUN:
                meanwhile()
            text = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise CrowdFailed(f"the clients' process ended with {process.returncode}")
    return msgspec.json.decode(text, type=Tally)


def main(arguments: list[str]) -> None:
    load = msgspec.json.decode(arguments[0], type=Load)

    async def run() -> Tally:
        crowd = Crowd(load)
        print(BEGUN, flush=True)
        return await crowd.run()

    print(msgspec.json.encode(uvloop.run(run())).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
