"""Imports a model's handler in a process set up like its worker, tells what came of it, and ends: nothing is loaded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
from setproctitle import getproctitle

from modelserver.wire.control import Spawn
from modelserver.wire.frames import Failure, Load
from modelserver.worker.failures import EXIT, LoadFailed, failure_of
from modelserver.worker.loading import import_handler
from modelserver.worker.process import environment_of, make_log, make_streams, settle


def main(folder: str) -> int:
    """Carry out `<folder>/order`, a `Spawn` and a `Load`; the failures, if any, go to `<folder>/answer`."""
    getproctitle()  # as in `main.main`
    order, frame = msgspec.msgpack.decode(Path(folder, "order").read_bytes(), type=tuple[Spawn, Load])
    make_streams()
    make_log()
    settle(order, environment_of(os.environ, order))
    Path(folder, "answer").write_bytes(msgspec.msgpack.encode(rehearse(frame)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that the import has started must not hold it up


def rehearse(frame: Load) -> list[Failure]:
    """What keeps a worker from importing its handler; nothing if nothing does."""
    try:
        import_handler(frame)
    except LoadFailed as failed:
        return [failed.failure]
    except BaseException as error:
        return [failure_of(EXIT, error)]
    return []
