"""The one door into the engine for `rest` and `rpc`."""

from __future__ import annotations

import asyncio

from modelserver.archives.archive import Archive
from modelserver.archives.store import ArchiveStore
from modelserver.engine.assembly import Assembly
from modelserver.engine.job import Job
from modelserver.engine.ports import Events
from modelserver.engine.registry import Registry
from modelserver.engine.requests import Registered, Registration, Scaled, VersionStatus
from modelserver.engine.slot import WorkerSlot
from modelserver.engine.version import ModelVersion
from modelserver.errors import BadRequest, Certificate, InternalError, RequestTimeout, ServerError, WorkerError
from modelserver.settings.table import Settings


class Engine:
    """Registry, queues and workers behind a narrow interface. All methods run on the event loop."""

    def __init__(self, settings: Settings, store: ArchiveStore, assembly: Assembly, events: Events) -> None:
        self._settings = settings
        self._store = store
        self._assembly = assembly
        self._events = events
        self._registry: Registry[ModelVersion] = Registry()
        self._startup: dict[str, None] = {}  # names given at start-up that are still registered
        self._drains: set[asyncio.Task[None]] = set()

    def submit(self, job: Job, version: str | None) -> None:
        """Queue a job for the named or default version; `job.done` is called later.

        Raises ModelNotFound, VersionNotFound, ServiceUnavailable.
        """
        self._registry.get(job.model, version).submit(job)

    def cancel(self, job: Job) -> None:
        """The client is gone: free the job's place; `job.done` is not called any more."""
        if job.owner is not None:
            job.owner.cancel(job)

    def healthy(self) -> bool:
        """Every model's default version has as many healthy workers as its minimum."""
        return all(version.healthy() for _, version in self._registry.defaults())

    def list_models(self) -> list[tuple[str, str]]:
        """(name, url of the default version), sorted by name."""
        return [(name, version.archive.url) for name, version in self._registry.defaults()]

    def describe(self, model: str, version: str | None) -> list[VersionStatus]:
        """The default version (None), one version, or every version (`all`). Raises ModelNotFound, VersionNotFound."""
        every = version == "all"
        versions = self._registry.versions(model) if every else [self._registry.get(model, version)]
        return [entry.status(loaded_at_startup=model in self._startup) for entry in versions]

    async def register(self, registration: Registration) -> Registered:
        """Open the archive, register the version, start its workers. On failure nothing stays registered."""
        archive = await self._open(registration)
        try:
            version = self._admit(archive, registration)
        except BaseException:
            await asyncio.to_thread(_discard, archive)
            raise
        slots = version.grow(version.min_workers)
        if slots and registration.synchronous:
            await self._await_first_load(version, slots)
        return Registered(
            version.name, version.version, len(slots), pending=bool(slots) and not registration.synchronous
        )

    async def _open(self, registration: Registration) -> Archive:
        """Open the archive in a thread; one that nobody waits for any more is discarded when it is there."""
        opening = asyncio.ensure_future(
            asyncio.to_thread(
                self._store.open,
                registration.url,
                model_name=registration.model_name,
                handler=registration.handler,
                runtime=registration.runtime,
                default_handler=self._settings.default_service_handler,
                default_name=registration.default_name,
            )
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_discard_opened)
            raise
        except ServerError as error:
            if error.__cause__ is not None:
                self._events.log("ERROR", "archive.model.ModelArchive", f"{registration.url}: {error.__cause__}")
            raise

    def _admit(self, archive: Archive, registration: Registration) -> ModelVersion:
        """Make the version and enter it in the registry."""
        version = self._assembly.version(archive, registration)
        self._registry.add(version.name, version.version, version)
        if registration.at_startup:
            self._startup[version.name] = None
        self._debug(f"Adding new version {version.version} for model {version.name}")
        if len(self._registry.versions(version.name)) == 1:
            self._debug(f"Setting default version to {version.version} for model {version.name}")
        self._events.log("INFO", "wlm.ModelManager", f"Model {version.name} loaded.")
        return version

    async def _await_first_load(self, version: ModelVersion, slots: list[WorkerSlot]) -> None:
        """Undo the registration if a worker fails to load; the client leaving does not undo it."""
        certificate = await _first_failure(slots)
        if certificate is None:
            return
        if version in self._registry:
            self._registry.discard(version.name, version.version)
            self._forget_name(version.name)
        await version.drain(0)
        await asyncio.to_thread(_discard, version.archive)
        raise _start_failed(version.name, version.version, certificate)

    async def scale(self, model: str, version: str | None, minimum: int, maximum: int, *, synchronous: bool) -> Scaled:
        """Change the number of workers. Raises BadRequest (checked first), ModelNotFound, VersionNotFound,
        WorkerError.
        """
        if maximum < minimum:
            raise BadRequest("max_worker cannot be less than min_worker.")
        if minimum < 0:
            raise InternalError(f"min_worker must not be negative: {minimum}. Nothing was changed.")
        entry = self._registry.get(model, version)
        entry.min_workers, entry.max_workers = minimum, maximum
        self._events.log("DEBUG", "wlm.ModelManager", f"updateModel: {model}, count: {minimum}")
        if len(entry.slots) < minimum:
            added = entry.grow(minimum - len(entry.slots))
            if synchronous and (certificate := await _first_failure(added)) is not None:
                raise _start_failed(model, version or "null", certificate)
        elif len(entry.slots) > (limit := maximum if minimum else 0):
            removed = entry.shrink(len(entry.slots) - limit, self._settings.drain_timeout)
            if synchronous and not await self._ended(removed):
                raise RequestTimeout(f"Timed out while cleaning resources: {model}")
        alive = sum(slot.alive for slot in entry.slots.values())
        return Scaled(minimum, pending=not synchronous, complete=alive >= minimum)

    async def unregister(self, model: str, version: str | None) -> None:
        """Remove a version at once for new requests; what runs or waits finishes behind it within `drain_timeout`.

        Raises RequestTimeout if an idle version's workers do not end within `unregister_model_timeout`: it stays
        registered then, without workers.
        """
        entry = self._registry.removable(model, version)
        self._registry.remove(model, version)
        if entry.scheduler.idle:
            slots = entry.shrink(len(entry.slots), 0)
            if not await self._ended(slots):
                entry.min_workers = entry.max_workers = 0
                self._registry.add(entry.name, entry.version, entry)
                raise RequestTimeout(f"Timed out while cleaning resources: {model}")
        self._forget_name(model)
        self._events.log("INFO", "wlm.ModelManager", f"Model {model} unregistered.")
        if not any(other.archive.url == entry.archive.url for other in self._registry):
            await asyncio.to_thread(entry.archive.remove_download)
        self._drain_behind(entry, self._settings.drain_timeout)

    def set_default(self, model: str, version: str) -> None:
        """Make a version the default. Raises ModelNotFound, VersionNotFound."""
        self._registry.set_default(model, version)
        self._debug(f"Setting default version to {version} for model {model}")

    async def close(self, limit: float) -> None:
        """Refuse new work, let the rest finish within `limit` seconds, end every worker, remove every extracted
        archive.
        """
        for entry in self._registry:
            self._events.log("INFO", "wlm.ModelManager", f"Unregistering model {entry.name} version {entry.version}")
            self._registry.discard(entry.name, entry.version)
            self._drain_behind(entry, limit)
        while self._drains:
            await asyncio.wait(self._drains)

    def _drain_behind(self, entry: ModelVersion, limit: float) -> None:
        task = asyncio.create_task(self._drain(entry, limit), name=f"drain {entry.name} {entry.version}")
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)

    async def _drain(self, entry: ModelVersion, limit: float) -> None:
        await entry.drain(limit)
        await asyncio.to_thread(entry.archive.remove)

    async def _ended(self, slots: list[WorkerSlot]) -> bool:
        """Whether all these workers ended within `unregister_model_timeout`."""
        if not slots:
            return True
        timeout = self._settings.unregister_model_timeout
        _, pending = await asyncio.wait([slot.ended for slot in slots], timeout=timeout) if timeout else ((), slots)
        return not pending

    def _forget_name(self, model: str) -> None:
        if model not in (name for name, _ in self._registry.defaults()):
            self._startup.pop(model, None)

    def _debug(self, message: str) -> None:
        self._events.log("DEBUG", "wlm.ModelVersionedRefs", message)


async def _first_failure(slots: list[WorkerSlot]) -> Certificate | None:
    """None once all have loaded; the certificate of the first one that failed, at once."""
    for outcome in asyncio.as_completed([asyncio.shield(slot.outcome) for slot in slots]):
        if (certificate := await outcome) is not None:
            return certificate
    return None


def _discard_opened(opening: asyncio.Future[Archive]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        _discard(opening.result())


def _discard(archive: Archive) -> None:
    """Nothing of a failed registration stays: neither its model directory nor a file it downloaded."""
    archive.remove()
    archive.remove_download()


def _start_failed(model: str, version: str, certificate: Certificate) -> WorkerError:
    status = certificate.cause.http_status
    return WorkerError(status, f"Failed to start workers for model {model} version: {version}", certificate=certificate)
