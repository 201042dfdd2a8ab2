"""The worker's side of the memory that the frontend shares with it for large bodies."""

from __future__ import annotations

import logging
import mmap
import os
from pathlib import Path
from typing import Final

from modelserver.wire.frames import Batch, Octets, Replies, Share, Shared, SharedBatch, SharedReplies
from modelserver.wire.places import Misplaced, check_places, large_ones, lay_out

_PLAIN: Final = (bytes, bytearray)  # what else a handler may have made is copied once more, into the frame

_logger = logging.getLogger(__name__)


class SharedBodies:
    """Fills batches with the bodies that lie in the memory, and lays those of replies there."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None
        self._area = 0  # bytes; that of the replies begins behind so many
        self.room = 0  # bytes of the replies' area that may be written

    def attach(self, share: Share) -> Shared:
        """Take the memory, and say whether that was possible."""
        try:
            self._memory = _open(share)
        except Exception as error:
            _logger.info("Large bodies come through the socket: %s: %s", type(error).__name__, error)
            return Shared(f"{type(error).__name__}: {error}")
        self._area = share.area
        return Shared()

    def resize(self, room: int) -> None:
        """The frontend has taken memory for the replies' area, or has given it back."""
        self.room = min(room, self._area)  # none without the memory

    def fill(self, frame: SharedBatch) -> Batch:
        """The batch with all its bodies, of which handlers may make what they like. Raises `Misplaced`."""
        check_places(frame.places, self._area)
        if self._memory is None:
            raise Misplaced("bodies in memory that this process does not have")
        with memoryview(self._memory) as memory:
            for place in frame.places:
                part = frame.batch.requests[place.item].parts[place.part]
                part.value = Octets(memory[place.start : place.start + place.size])
        return frame.batch

    def lay(self, replies: Replies) -> Replies | SharedReplies:
        """What is to be sent: the replies as they are, or with as many of their large bodies laid aside as fit."""
        bodies = [reply.body for reply in replies.replies]
        large = large_ones([(item, 0, len(body)) for item, body in enumerate(bodies) if type(body) in _PLAIN])
        places = lay_out(large, self.room)
        if not places or self._memory is None:
            return replies
        for place in places:
            start = self._area + place.start
            self._memory[start : start + place.size] = bodies[place.item]
            replies.replies[place.item].body = b""
        return SharedReplies(replies, places)


def _open(share: Share) -> mmap.mmap:
    """The memory, by the frontend's descriptor of it. Raises OSError where that leads nowhere, or elsewhere."""
    path = Path(f"/proc/{share.process}/fd/{share.descriptor}")
    _check_identity(path.stat(), share)  # before it is opened: in a namespace of our own it may be anything
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        _check_identity(os.fstat(descriptor), share)
        return mmap.mmap(descriptor, 2 * share.area)
    finally:
        os.close(descriptor)


def _check_identity(found: os.stat_result, share: Share) -> None:
    if (found.st_dev, found.st_ino) != (share.device, share.inode):
        raise OSError("the frontend's descriptor belongs to another file here")
