"""Memory that the frontend shares with one worker, so that large bodies need not go through the socket.

One file without a name, of fixed length: requests in its first half, replies in its second. It has memory only where
bodies have lain lately (`Room`), and it can be neither cut nor grown by anybody, so that a mapping of it always holds.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from contextlib import suppress
from typing import Final

from modelserver.wire.frames import (
    Ask,
    Batch,
    Cancel,
    FromWorker,
    Load,
    Replies,
    Room,
    Share,
    Shared,
    SharedBatch,
    SharedReplies,
    Stop,
    encode,
)
from modelserver.wire.places import AREA, Misplaced, Place, check_places, large_ones, lay_out, room_for

_STEP: Final = 1 << 20  # bytes by which an area grows


class SharedBodies:
    """Lays the bodies of batches into the memory, and takes those of replies out of it.

    A worker with one unanswered batch needs no more order than that: what lies there belongs to the batch that is sent
    next, or to the replies that came last, and these are copied before anybody hears of them.
    """

    def __init__(self) -> None:
        """Raises OSError where there is no such memory."""
        self._descriptor = _make_file(2 * AREA)
        try:
            self._memory = mmap.mmap(self._descriptor, 2 * AREA)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._requests = _Area(self._descriptor, 0)
        self._replies = _Area(self._descriptor, AREA)
        self._open = False  # the worker has the memory too
        self._closed = False
        self._unanswered = False  # a batch is with the worker
        self._used = False  # since the last look
        file = os.fstat(self._descriptor)
        # Frames that go ahead of the next batch: alone they would blur what a broken connection tells about the last.
        self._ahead: list[Share | Room] = [Share(os.getpid(), self._descriptor, file.st_dev, file.st_ino, AREA)]

    @property
    def held(self) -> int:
        """Bytes of memory that have been taken from the machine."""
        return self._requests.room + self._replies.room

    def encode(self, frame: Load | Batch | Cancel | Stop) -> bytes:
        """The bytes to be sent for a frame, and for what goes ahead of it; large bodies have been laid aside."""
        if type(frame) is not Batch:
            return encode(frame)
        ahead = b"".join(map(encode, self._ahead))
        self._ahead.clear()
        places = self._lay(frame) if self._open and not self._unanswered else []
        self._unanswered = True
        return ahead + (_encode_without(frame, places) if places else encode(frame))

    def receive(self, frame: FromWorker) -> FromWorker | None:
        """What is to be delivered of a frame, its bodies in it. Raises `Misplaced` where there are none."""
        if type(frame) is Replies:
            self._answered(frame)
        elif type(frame) is SharedReplies:
            self._take(frame)
            self._answered(frame.replies)
            return frame.replies
        elif type(frame) is Shared:
            self._open = not frame.error and not self._closed
            if frame.error:
                self.close()
            return None
        elif type(frame) is Ask:
            return None
        return frame

    def rest(self) -> bool:
        """Give the memory back to the machine if nobody has used it since the last call; True if there is none now."""
        if self._used or self._unanswered:
            self._used = False
        elif self.held:
            self._free()
            self._tell_room()
        return not self.held

    def close(self) -> None:
        """Let go of the memory, whoever else may still have it: the worker, or what that has left behind."""
        if self._closed:
            return
        self._closed = True
        self._open = False
        self._ahead.clear()
        self._free()
        self._memory.close()
        os.close(self._descriptor)

    def _lay(self, batch: Batch) -> list[Place]:
        large = large_ones(
            [
                (item, number, len(part.value))
                for item, request in enumerate(batch.requests)
                for number, part in enumerate(request.parts)
            ]
        )
        if not large:
            return []
        self._used = True
        self._requests.grow(room_for(large))
        places = lay_out(large, self._requests.room)
        for place in places:
            self._memory[place.start : place.start + place.size] = batch.requests[place.item].parts[place.part].value
        return places

    def _take(self, frame: SharedReplies) -> None:
        check_places(frame.places, self._replies.room)
        replies = frame.replies.replies
        for place in frame.places:
            if not 0 <= place.item < len(replies):
                raise Misplaced(f"a body for reply {place.item} of {len(replies)}")
            start = AREA + place.start
            replies[place.item].body = self._memory[start : start + place.size]
        self._used = True

    def _answered(self, frame: Replies) -> None:
        """Everything of the batch has been copied by both sides; the next replies may be as large as these."""
        self._unanswered = False
        large = large_ones([(item, 0, len(reply.body)) for item, reply in enumerate(frame.replies)])
        if large and not self._closed:
            self._used = True
            if self._replies.grow(room_for(large)):
                self._tell_room()

    def _tell_room(self) -> None:
        """With the next batch: nothing is written before."""
        self._ahead = [frame for frame in self._ahead if type(frame) is not Room]
        self._ahead.append(Room(self._replies.room))

    def _free(self) -> None:
        if self.held:
            with suppress(OSError):  # a file system that does not know how: the end of the file will do it
                self._memory.madvise(mmap.MADV_REMOVE)
        self._requests.forget()
        self._replies.forget()


class _Area:
    """One half of the file: how much of it has memory."""

    def __init__(self, descriptor: int, base: int) -> None:
        self._descriptor = descriptor
        self._base = base  # bytes
        self._limit = AREA  # bytes; less once the machine has refused
        self.room = 0  # bytes

    def grow(self, wanted: int) -> bool:
        """Take more memory if `wanted` bytes need it and it is to be had; True if it was.

        Here and not where it is written: a page that cannot be had then is a signal that nobody survives.
        """
        wanted = min(wanted + -wanted % _STEP, self._limit)
        if wanted <= self.room:
            return False
        try:
            os.posix_fallocate(self._descriptor, self._base + self.room, wanted - self.room)
        except OSError:
            self._limit = self.room
            return False
        self.room = wanted
        return True

    def forget(self) -> None:
        """There is no memory any more."""
        self.room = 0
        self._limit = AREA


def _make_file(size: int) -> int:
    """A descriptor. Raises OSError."""
    if not hasattr(os, "memfd_create"):
        raise OSError("the kernel shares no memory by descriptor")
    descriptor = os.memfd_create("modelserver-bodies", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _encode_without(batch: Batch, places: list[Place]) -> bytes:
    """The batch as it is sent. Its jobs keep their bodies for a second attempt: they are set aside for a moment."""
    parts = [batch.requests[place.item].parts[place.part] for place in places]
    values = [part.value for part in parts]
    try:
        for part in parts:
            part.value = b""
        return encode(SharedBatch(batch, places))
    finally:
        for part, value in zip(parts, values, strict=True):
            part.value = value
