"""Where the clients of an https address wait until it is known what they speak, and until they have shaken hands.

They are looked at before any byte is read, so that one who speaks plain HTTP gets an answer that it understands, and
one who says nothing costs a descriptor and a timer, for a short time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

from modelserver.rest.render import JSON_TYPE, UNCACHED, json_text

_FAREWELL: Final = 600.0  # seconds for the rest of the last response; the protocol ends it once that is delivered
_LINGER: Final = 2.0  # seconds to discard what a client of plain HTTP still sends
_PAUSE: Final = 1.0  # seconds, when no descriptor is left
_TURN: Final = 100  # clients let in per turn of the loop
_HANDSHAKE: Final = b"\x16"  # how every record begins that begins TLS
_SCOLDING: Final = "Recieved HTTP request!"  # spelled as TorchServe does
_REFUSAL: Final = json_text({"status": "This TorchServe instance only accepts HTTPS requests"})
_PLAIN: Final = b"HTTP/1.1 403 Forbidden\r\n%b: %b\r\n%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
    *JSON_TYPE,
    UNCACHED,
    len(_REFUSAL),
    _REFUSAL,
)


@dataclass(frozen=True, slots=True)
class HttpsOptions:
    """What a listener of https needs beyond what every listener needs."""

    context: ssl.SSLContext
    admits: Callable[[int], bool] = lambda _: True  # whether the connection of this descriptor may stay
    patience: float = 10.0  # seconds for the first byte, and then for the handshake
    report: Callable[[str, str], object] = lambda level, message: None  # told of clients that do not get in


class Vestibule:
    """Accepts clients on a listening socket; those who have shaken hands get a protocol."""

    def __init__(
        self, listening: socket.socket, options: HttpsOptions, welcome: Callable[[], asyncio.Protocol]
    ) -> None:
        self._listening = listening
        self._options = options
        self._welcome = welcome
        self._loop = asyncio.get_running_loop()
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        self._speaking: set[asyncio.Task[None]] = set()
        self._left = asyncio.Event()  # set when somebody leaves
        self._pause: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to accept."""
        self._pause = None
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Accept nobody any more."""
        self._loop.remove_reader(self._listening)
        if self._pause is not None:
            self._pause.cancel()

    async def emptied(self, patience: float) -> None:
        """Return when nobody waits here any more; whoever is still here after these seconds is sent away."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._silent or self._speaking:
                    self._left.clear()
                    await self._left.wait()
        for guest in list(self._silent):
            self._turn_away(guest)
        for task in self._speaking:
            task.cancel()

    def receive(self, guest: socket.socket) -> None:
        """Wait for the first byte of somebody who has been accepted."""
        guest.setblocking(False)
        if not self._options.admits(guest.fileno()):
            guest.close()
            return
        self._silent[guest] = self._loop.call_later(self._options.patience, self._turn_away, guest)
        self._loop.add_reader(guest, self._listen_to, guest)

    def _accept(self) -> None:
        for _ in range(_TURN):
            try:
                guest, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError:
                self._loop.remove_reader(self._listening)
                self._pause = self._loop.call_later(_PAUSE, self.open)
                return
            self.receive(guest)

    def _listen_to(self, guest: socket.socket) -> None:
        try:
            first = guest.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if not first:
            self._turn_away(guest)
            return
        self._see_off(guest)
        task = self._loop.create_task(self._shake_hands(guest) if first == _HANDSHAKE else self._refuse(guest))
        self._speaking.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._speaking.discard(task)
        self._left.set()

    def _see_off(self, guest: socket.socket) -> None:
        """It is not waited for any more."""
        self._silent.pop(guest).cancel()
        self._loop.remove_reader(guest)

    def _turn_away(self, guest: socket.socket) -> None:
        self._see_off(guest)
        guest.close()
        self._left.set()

    async def _shake_hands(self, guest: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._welcome,
                guest,
                ssl=self._options.context,
                ssl_handshake_timeout=self._options.patience,
                ssl_shutdown_timeout=_FAREWELL,
            )
        except OSError as error:  # those of TLS are such, too
            self._options.report("DEBUG", f"TLS handshake failed: {error}")
            guest.close()

    async def _refuse(self, guest: socket.socket) -> None:
        self._options.report("ERROR", _SCOLDING)
        with suppress(OSError):
            await self._loop.connect_accepted_socket(_Refusal, guest)


class _Refusal(asyncio.Protocol):
    """Answers a client of plain HTTP, and discards what it still sends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writing = cast(asyncio.Transport, transport)
        writing.write(_PLAIN)
        writing.write_eof()
        self._end = asyncio.get_running_loop().call_later(_LINGER, writing.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end.cancel()
