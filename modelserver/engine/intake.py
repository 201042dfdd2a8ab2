"""From a registration to an archive that can be served, in threads of its own: a download or pip may take minutes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from modelserver.archives.archive import Archive
from modelserver.archives.dependencies import Dependencies, Installation
from modelserver.archives.programs import Stopped
from modelserver.archives.store import ArchiveStore
from modelserver.engine.ports import Events
from modelserver.engine.requests import Registration
from modelserver.errors import ServerError, ServiceUnavailable
from modelserver.settings.model_options import ModelOptions

T = TypeVar("T")

_AT_ONCE: Final = 8  # registrations; the rest waits


class Intake:
    """Opens archives and installs what they bring, until `close`. All methods run on the event loop."""

    def __init__(
        self, store: ArchiveStore, dependencies: Dependencies, events: Events, default_handler: str | None
    ) -> None:
        self._store = store
        self._dependencies = dependencies
        self._events = events
        self._default_handler = default_handler
        # Not the loop's own threads: with all of those in downloads, no model could be unregistered.
        self._threads = ThreadPoolExecutor(_AT_ONCE, "intake")
        self._installations: set[Installation] = set()
        self._closed = False

    async def open(self, registration: Registration) -> Archive:
        """Open the archive; one that nobody waits for any more is discarded when it is there.

        Raises what the store raises, and ServiceUnavailable after `close`.
        """
        opening = self._start(
            partial(
                self._store.open,
                registration.url,
                model_name=registration.model_name,
                handler=registration.handler,
                runtime=registration.runtime,
                default_handler=self._default_handler,
                default_name=registration.default_name,
                salvage=registration.saved is not None,
                s3_sse_kms=registration.s3_sse_kms,
                reuse=registration.at_startup,
            )
        )
        try:
            archive = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_discard_opened)
            raise
        except ServerError as error:
            if error.__cause__ is not None:
                self._events.log("ERROR", "archive.model.ModelArchive", f"{registration.url}: {error.__cause__}")
            if self._closed:
                raise _stopping() from error
            raise
        if archive.reused:
            message = f"{archive.downloaded} is there already: {archive.url} is not downloaded again"
            self._events.log("INFO", "archive.model.ModelArchive", message)
        return archive

    async def equip(self, archive: Archive, options: ModelOptions, python_path: Sequence[str]) -> Archive:
        """Install what the archive brings; returns it with the interpreter its workers need.

        Cancelled, it returns when nothing writes into the model directory any more. Raises ModelError, and
        ServiceUnavailable after `close`.
        """
        installation = self._dependencies.installation(
            archive, runtime=options.runtime, use_venv=options.use_venv, python_path=python_path
        )
        if installation is not None:
            archive = replace(archive, python=await self._install(installation))
        self.require_open()
        return archive

    def close(self) -> None:
        """End every download and installation, begin nothing any more."""
        self._closed = True
        self._store.stop()
        for installation in self._installations:
            installation.stop()
        self._threads.shutdown(wait=False)

    async def _install(self, installation: Installation) -> str:
        installing = self._start(installation.run)
        self._installations.add(installation)
        try:
            return await asyncio.shield(installing)
        except Stopped:
            raise _stopping() from None
        except asyncio.CancelledError:
            installation.stop()
            await asyncio.wait([installing])
            installing.exception()  # asked for, or the loop would complain that nobody did
            raise
        finally:
            self._installations.discard(installation)
            for notice in installation.notices:
                self._events.log(notice.level, notice.logger, notice.message)

    def require_open(self) -> None:
        """Raises ServiceUnavailable after `close`."""
        if self._closed:
            raise _stopping()

    def _start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """No task: the end of the event loop cancels every task, and what an unwatched thread makes is nobody's."""
        self.require_open()
        return asyncio.get_running_loop().run_in_executor(self._threads, work)


async def discard(archive: Archive) -> None:
    """Nothing of a failed registration stays: neither its model directory nor a file it downloaded."""
    await asyncio.to_thread(archive.discard)


def _discard_opened(opening: asyncio.Future[Archive]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().discard()


def _stopping() -> ServiceUnavailable:
    return ServiceUnavailable("The server stops: no model is registered any more.")
