"""One connection of a worker: frames in, frames out, and the truth about its end."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Protocol, cast

import msgspec

from modelserver.allocator import give_freed_memory_back, keep_freed_memory
from modelserver.pool.shared_bodies import SharedBodies
from modelserver.wire.frames import (
    Ask,
    Batch,
    Cancel,
    FrameTooLarge,
    FromWorker,
    FromWorkerReader,
    Hello,
    Load,
    Stop,
    encode,
)
from modelserver.wire.places import WORTH_SHARING, Misplaced

HELLO_LIMIT = 1 << 12  # bytes a stranger may send before it has said who it is
_DRAIN = 1 << 16
_REST = 5.0  # seconds without a large body, at least, after which shared memory goes back to the machine


class Peer(Protocol):
    """Who gets a link's frames."""

    def introduce(self, hello: Hello, link: Link) -> None:
        """The link is this peer's from now on."""

    def deliver(self, frame: FromWorker) -> None:
        """A frame arrived."""

    def violated(self, error: Exception) -> None:
        """Something arrived that is not a frame, or too large; nothing more will be delivered."""

    def disconnected(self) -> None:
        """The connection is over and read to its end."""


class Door(Protocol):
    """Who decides about new connections."""

    def admit(self, hello: Hello) -> Peer | None:
        """The peer that this worker is; None for strangers."""

    def opened(self, link: Link) -> None:
        """A connection was made."""

    def closed(self, link: Link) -> None:
        """A connection was admitted, or ended before it was."""


class Link(asyncio.Protocol):
    """A stranger until its `Hello` is admitted, a worker's connection from then on."""

    def __init__(self, door: Door, frame_limit: int) -> None:
        self._door = door
        self._frame_limit = frame_limit
        self._reader = FromWorkerReader(HELLO_LIMIT)
        self._peer: Peer | None = None
        self._violated = False
        # Large bodies
        self._takes_share = False  # the worker has said that it can
        self._bodies: SharedBodies | None = None  # none before the first of them
        self._look: asyncio.TimerHandle | None = None  # whether shared memory is still used; none while there is none
        # Writing
        self._transport: asyncio.Transport | None = None  # None before and after the connection
        self._unsent = 0  # batches that came after the end
        # The end
        self._duplicate: socket.socket | None = None  # outlives the transport, which forgets what is left to read
        self._stalled = False  # the transport holds bytes that the kernel has not taken
        self._reset = False  # the worker died without having read everything
        self._last: type = Load  # of the frame sent last

    @property
    def unread(self) -> int:
        """After the end: how many of the last batches the worker has certainly not (completely) read."""
        # Once the batch has left, frames behind it (a cancellation) may be the ones that were not read.
        return self._unsent or int(self._last is Batch and (self._reset or self._stalled))

    def send(self, frame: Load | Batch | Cancel | Stop) -> None:
        """Write one frame now: batches come one at a time, so there is nothing to gather. Never raises."""
        self._last = type(frame)
        if self._transport is None or self._transport.is_closing():
            self._unsent += self._last is Batch
        elif self._bodies is None:
            data = encode(frame)
            if len(data) >= WORTH_SHARING:
                self._share()
                data = data if self._bodies is None else self._bodies.encode(frame)
            self._transport.write(data)
        else:
            self._transport.write(self._bodies.encode(frame))
            self._keep_looking()

    def close(self) -> None:
        """Deliver what has arrived, and end the connection."""
        self._read_to_end()
        self.abort()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._transport.set_write_buffer_limits(
            high=0
        )  # hence `pause_writing` as soon as the kernel does not take everything
        self._door.opened(self)

    def pause_writing(self) -> None:
        """Called by the event loop."""
        self._stalled = True

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self._stalled = False

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if self._violated:
            return
        try:
            for frame in self._reader.feed(data):
                if self._peer is None:
                    if not self._introduce(frame):
                        return
                elif self._bodies is None and type(frame) is not Ask:
                    self._peer.deliver(frame)
                else:
                    self._receive_body(frame, self._peer)
        except (FrameTooLarge, Misplaced, msgspec.MsgspecError) as error:
            self._violated = True
            if self._peer is None:
                self.abort()
            else:
                self._peer.violated(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None
        if self._peer is None:
            self._door.closed(self)
            return
        # EPIPE: the last frame was written after the worker's end. ECONNRESET: before, and the worker had not read it.
        self._reset = isinstance(error, BrokenPipeError | ConnectionResetError)
        self._read_to_end()
        self._unshare()
        self._peer.disconnected()

    def _introduce(self, frame: FromWorker) -> bool:
        """Ask the door about a stranger's first frame; False if it was sent away."""
        assert self._transport is not None
        peer = self._door.admit(frame) if isinstance(frame, Hello) else None
        duplicate = _duplicate(self._transport) if peer is not None else None
        if duplicate is None or peer is None or not isinstance(frame, Hello):
            self._violated = True
            self.abort()
            return False
        self._duplicate = duplicate
        self._peer = peer
        self._takes_share = frame.shares
        self._reader.limit = self._frame_limit
        self._door.closed(self)
        peer.introduce(frame, self)
        return True

    def _share(self) -> None:
        """From the next batch on, large bodies lie in memory that the worker has too, if that can be."""
        if self._takes_share and self._bodies is None and self._transport is not None:
            self._takes_share = False  # once is enough
            with suppress(OSError):
                self._bodies = SharedBodies()
                keep_freed_memory(os.environ)  # which the same bodies take here, on their way from and to clients

    def _unshare(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None
        if self._bodies is not None:
            self._bodies.close()
            self._bodies = None

    def _receive_body(self, frame: FromWorker, peer: Peer) -> None:
        """A frame that may have to do with shared memory."""
        if type(frame) is Ask:
            self._share()
        whole = frame if self._bodies is None else self._bodies.receive(frame)
        self._keep_looking()
        if whole is not None and type(whole) is not Ask:
            peer.deliver(whole)

    def _keep_looking(self) -> None:
        if self._look is None and self._bodies is not None and self._bodies.held:
            self._look = asyncio.get_running_loop().call_later(_REST, self._rest)

    def _rest(self) -> None:
        self._look = None
        if self._bodies is None:
            return
        if self._bodies.rest():
            give_freed_memory_back()
        else:
            self._keep_looking()

    def _read_to_end(self) -> None:
        """Deliver what arrived before the end: transports drop it when a write fails first."""
        if self._duplicate is None:
            return
        with self._duplicate as connection:
            self._duplicate = None
            try:
                while data := connection.recv(_DRAIN, socket.MSG_DONTWAIT):
                    self.data_received(data)
            except ConnectionResetError:
                self._reset = True
            except BlockingIOError:
                pass  # it has not ended: something the dead process had started holds it, or we end it ourselves


def _duplicate(transport: asyncio.Transport) -> socket.socket | None:
    """Another descriptor of the same connection; None if there are no descriptors left."""
    try:
        return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    except OSError:
        return None
