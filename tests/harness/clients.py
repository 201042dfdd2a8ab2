"""Clients that know exactly what happened to a request, and load made of them."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

from harness.server import DEADLINE

_PAUSE = 0.01  # seconds between attempts to connect where nobody listens


class Lost(Exception):
    """A request that may have been begun got no complete answer."""


class StrictClient:
    """One keep-alive connection at a time; tries again only where nothing can have begun.

    That is: a refused connection, and a reused connection that ended before the first byte of the answer. Everything
    else raises Lost.
    """

    def __init__(self, port: int, *, fresh: bool = False) -> None:
        self.port = port
        self.fresh = fresh  # a new connection for each request
        self.events: Counter[str] = Counter()  # "refused", "ended before the first byte", "told to close"
        self._socket: socket.socket | None = None
        self._used = False  # the connection has carried an answer

    def request(self, path: str, body: bytes = b"", *, give_up: threading.Event | None = None) -> tuple[int, bytes]:
        """Status and body. Raises Lost; and TimeoutError once `give_up` is set and nobody listens."""
        data = b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        while True:
            self.connect(give_up)
            used = self._used
            try:
                answer = self._exchange(data)
            except (ConnectionError, EOFError) as error:
                self.close()
                if not used:
                    raise Lost(f"a fresh connection ended before the first byte: {error!r}") from error
                self.events["ended before the first byte"] += 1
                continue
            self._used = True
            return answer

    def connect(self, give_up: threading.Event | None = None) -> None:
        """Connect unless that is done; waits while connections are refused."""
        while self._socket is None:
            try:
                self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
                self._used = False
            except ConnectionRefusedError:
                if give_up is not None and give_up.is_set():
                    raise TimeoutError("nobody listens") from None
                self.events["refused"] += 1
                time.sleep(_PAUSE)

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _exchange(self, data: bytes) -> tuple[int, bytes]:
        """Raises ConnectionError or EOFError before the first byte of the answer, Lost after it."""
        assert self._socket is not None
        self._socket.sendall(data)
        received = self._socket.recv(65536)
        if not received:
            raise EOFError("closed")
        head, rest = self._read_until(received, lambda data: b"\r\n\r\n" in data).split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers["content-length"])
        body = self._read_until(rest, lambda data: len(data) >= length)
        if headers["connection"] == "close":
            self.events["told to close"] += 1
        if self.fresh or headers["connection"] == "close":
            self.close()
        return int(first.split(" ")[1]), body

    def _read_until(self, data: bytes, complete: Callable[[bytes], bool]) -> bytes:
        assert self._socket is not None
        while not complete(data):
            try:
                piece = self._socket.recv(65536)
            except OSError as error:
                raise Lost(f"the answer broke off after {data!r}: {error!r}") from error
            if not piece:
                raise Lost(f"the answer ended after {data!r}")
            data += piece
        return data


class Load:
    """Threads that send predictions one after the other until the end of a `with` block.

    Every second client takes a new connection for each request.
    """

    def __init__(self, port: int, path: str, clients: int = 4) -> None:
        self.failures: list[str] = []
        self.answers: list[tuple[float, bytes]] = []  # (when it was complete, seconds of the monotonic clock; body)
        self.clients = [StrictClient(port, fresh=bool(number % 2)) for number in range(clients)]
        self._path = path
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(client,)) for client in self.clients]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE)
        for client in self.clients:
            client.close()

    def total(self, event: str) -> int:
        """How often this has happened to all clients together."""
        return sum(client.events[event] for client in self.clients)

    def _send(self, client: StrictClient) -> None:
        for number in itertools.count():
            if self._over.is_set():
                return
            try:
                status, body = client.request(self._path, b"%d" % number, give_up=self._over)
            except TimeoutError as error:
                self.failures += [] if self._over.is_set() else [repr(error)]
            except Exception as error:
                self.failures.append(repr(error))
                client.close()
            else:
                self.answers.append((time.monotonic(), body))
                if status != 200:
                    self.failures.append(f"{status}: {body!r}")


def bodies(answers: Sequence[tuple[float, bytes]]) -> set[bytes]:
    """What was answered."""
    return {body for _, body in answers}
