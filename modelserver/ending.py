"""The end of the server process: the signals that ask for it, and the threads that must not hold it up."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Final, NoReturn

_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_THREAD_PATIENCE: Final = 2.0  # seconds for what runs in threads when the loop closes


class StopSignals:
    """Counts them: the first asks for the end, the second for haste, the third that nothing is waited for any more.

    None of them leaves a traceback; a process whose server does not run yet just exits, with status 0.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.forced = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def install(self) -> None:
        """Begin to listen, for good: handlers of the event loop would come after it and leave before the process.

        A hang-up that the process was started to ignore, by nohup for one, stays ignored, as in a JVM.
        """
        for number in _NUMBERS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._receive)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """The server runs: from now on the events tell it."""
        self._loop = loop

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._loop is None:
            raise SystemExit(0)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._count)

    def _count(self) -> None:
        for event in (self.asked, self.hurried, self.forced):
            if not event.is_set():
                event.set()
                return


class Threads(ThreadPoolExecutor):
    """The event loop's threads; those that hang, in a download perhaps, do not keep the loop from closing."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="frontend")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Called by the loop when it closes."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            _join(_THREAD_PATIENCE)


def leave(status: int) -> NoReturn:
    """End the process, also while a thread hangs: the interpreter would wait for it without limit."""
    if _running():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _running() -> list[threading.Thread]:
    """Threads that the interpreter would wait for."""
    return [thread for thread in threading.enumerate() if not (thread.daemon or thread is threading.main_thread())]


def _join(seconds: float) -> None:
    end = time.monotonic() + seconds
    for thread in _running():
        if thread is not threading.current_thread():
            thread.join(max(0.0, end - time.monotonic()))
