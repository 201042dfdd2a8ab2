"""A service whose user is taken to the place where the handler failed."""

from __future__ import annotations

import pdb
from bdb import BdbQuit

from modelserver.wire.frames import Batch, Replies
from modelserver.worker.continuous_service import ContinuousService
from modelserver.worker.failures import ResultRejected
from modelserver.worker.service import Service


class DebuggedService(Service):
    """Opens the debugger on what the handler raises; what it returns has no place to go to."""

    def _refuse(self, batch: Batch, error: BaseException, elapsed: int) -> Replies:
        if not isinstance(error, ResultRejected | BdbQuit):
            debug(error)
        return super()._refuse(batch, error, elapsed)


class DebuggedContinuousService(DebuggedService, ContinuousService):
    """The same for batches that are steps."""


def debug(error: BaseException) -> None:
    """Open the debugger where the error was raised; returns when its user has left."""
    if error.__traceback__ is not None:
        print(f"{type(error).__name__}: {error}", flush=True)
        pdb.post_mortem(error.__traceback__)
