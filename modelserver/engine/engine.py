"""The one door into the engine for `rest` and `rpc`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from modelserver.archives.archive import Archive
from modelserver.archives.dependencies import Dependencies
from modelserver.archives.store import ArchiveStore
from modelserver.engine.assembly import Assembly
from modelserver.engine.intake import Intake, discard
from modelserver.engine.job import Job
from modelserver.engine.ports import Changes, Events, Gauge
from modelserver.engine.registry import Registry
from modelserver.engine.requests import Ailment, Registered, Registration, Scaled, VersionStatus
from modelserver.engine.slot import WorkerSlot
from modelserver.engine.start_up import StartUp
from modelserver.engine.version import ModelVersion
from modelserver.errors import (
    BadRequest,
    Cause,
    Certificate,
    Conflict,
    InternalError,
    RequestTimeout,
    WorkerError,
)
from modelserver.settings.snapshot import SavedModels, SavedVersion
from modelserver.settings.table import Settings

_STOPPING: Final = "the server is about to stop"


class Engine:
    """Registry, queues and workers behind a narrow interface. All methods run on the event loop."""

    def __init__(
        self,
        settings: Settings,
        store: ArchiveStore,
        dependencies: Dependencies,
        assembly: Assembly,
        events: Events,
        gauge: Gauge | None = None,
        changes: Changes | None = None,
        memory: Mapping[int, int] | None = None,
    ) -> None:
        """`memory`: bytes by pid as somebody else reports them; without it the workers are looked at themselves."""
        self._settings = settings
        self._assembly = assembly
        self._events = events
        self._gauge = gauge
        self._changes = changes
        self._memory = memory
        self._intake = Intake(store, dependencies, events, settings.default_service_handler)
        self._registry: Registry[ModelVersion] = Registry(events.versions_changed)
        self._startup: dict[str, None] = {}  # names given at start-up that are still registered
        self._drains: set[asyncio.Task[None]] = set()
        self._lame = False  # the server is about to stop
        self._start_up = StartUp()

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
        """Every model's default version has as many healthy workers as its minimum, and the server is to stay."""
        return not self._lame and all(version.healthy() for _, version in self._registry.defaults())

    def ailments(self) -> list[Ailment]:
        """Why the server is not healthy."""
        stop = [Ailment(Certificate(Cause.STOPPED, _STOPPING))] if self._lame else []
        ailing = [version for _, version in self._registry.defaults() if not version.healthy()]
        return stop + [ailment for version in ailing for ailment in version.ailments()]

    def begin(self, failed: Iterable[str]) -> None:
        """The server begins to listen: what is registered now is what it has started with; `failed` is what is not."""
        if self._settings.ready_after_models:
            self._start_up = StartUp(self._registry, failed)

    def unready(self) -> list[str]:
        """Why no work should come yet, or any more; nothing unless `ready_after_models`."""
        if self._lame and self._settings.ready_after_models:
            return [_STOPPING]
        return self._start_up.awaited()

    def go_lame(self) -> None:
        """Unhealthy from now on, so that no new work is sent here; what comes is served."""
        self._lame = True

    def require(self, model: str, version: str | None) -> None:
        """Raises ModelNotFound, VersionNotFound unless the named or default version is registered."""
        self._registry.get(model, version)

    def startup_models(self) -> list[str]:
        """Names given at start-up that have not been unregistered since."""
        return list(self._startup)

    def list_models(self) -> list[tuple[str, str]]:
        """(name, url of the default version), sorted by name."""
        return [(name, version.archive.url) for name, version in self._registry.defaults()]

    def describe(self, model: str, version: str | None) -> list[VersionStatus]:
        """The default version (None), one version, or every version (`all`). Raises ModelNotFound, VersionNotFound."""
        every = version == "all"
        versions = self._registry.versions(model) if every else [self._registry.get(model, version)]
        statuses = [entry.status(loaded_at_startup=model in self._startup) for entry in versions]
        return statuses if self._memory is None else [_with_memory(status, self._memory) for status in statuses]

    def worker_pids(self) -> list[int]:
        """Of all workers that run or are to run; -1 for one whose process is not known yet."""
        return [slot.pid for version in self._registry for slot in version.slots.values() if slot.alive]

    async def observe(self, model: str, version: str | None) -> list[VersionStatus]:
        """What `describe` tells, and how busy the workers' GPUs are."""
        entries = self.describe(model, version)
        gpus = {worker.device for entry in entries for worker in entry.workers if worker.device is not None}
        usage = await self._gauge.read(gpus) if self._gauge is not None and gpus else {}
        return [_with_usage(entry, usage) for entry in entries]

    async def register(self, registration: Registration) -> Registered:
        """Open the archive, install what it brings, register the version, start its workers.

        On failure nothing stays registered.
        """
        archive = await self._intake.open(registration)
        try:
            version = await self._admit(archive, registration)
        except BaseException:
            await self._discard(archive)
            raise
        self._events.log("DEBUG", "wlm.ModelManager", f"updateModel: {version.name}, count: {version.min_workers}")
        slots = version.grow(version.min_workers)
        await self._report_change()
        if slots and registration.synchronous:
            await self._await_first_load(version, slots)
        asked = version.options.min_workers  # a parallel model may have got fewer, for want of GPUs
        return Registered(version.name, version.version, asked, pending=bool(slots) and not registration.synchronous)

    async def _admit(self, archive: Archive, registration: Registration) -> ModelVersion:
        """Install what the archive brings, make the version and enter it in the registry."""
        options = self._assembly.options(archive, registration)
        self._registry.check_free(archive.model_name, archive.version)  # known now, not after minutes of installing
        archive = await self._intake.equip(archive, options, self._assembly.python_path(archive))
        version = self._assembly.version(archive, options)
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
        self._require_still(version)
        if certificate is None:
            return
        self._registry.discard(version.name, version.version)
        self._forget_name(version.name)
        await version.drain(0)
        await self._discard(version.archive)
        await self._report_change()
        raise _start_failed(version.name, version.version, certificate)

    def _require_still(self, version: ModelVersion) -> None:
        """Raises Conflict if another call has unregistered a version meanwhile, ServiceUnavailable if the server stops:
        whoever did so cleans up behind it.
        """
        if version in self._registry:
            return
        self._intake.require_open()
        raise Conflict(f"Model {version.name} version {version.version} was unregistered while its workers loaded.")

    async def scale(self, model: str, version: str | None, minimum: int, maximum: int, *, synchronous: bool) -> Scaled:
        """Change the number of workers. Workers that another call removes while they load are not waited for.

        Raises BadRequest (checked first), ModelNotFound, VersionNotFound, WorkerError, and what `_require_still` does.
        """
        if maximum < minimum:
            raise BadRequest("max_worker cannot be less than min_worker.")
        if minimum < 0:
            raise InternalError(f"min_worker must not be negative: {minimum}. Nothing was changed.")
        entry = self._registry.get(model, version)
        minimum, maximum = self._assembly.cap(entry.options, minimum, maximum, model)
        entry.min_workers, entry.max_workers = minimum, maximum
        self._events.log("DEBUG", "wlm.ModelManager", f"updateModel: {model}, count: {minimum}")
        removed = self._resize(entry)
        loading = [slot for slot in entry.slots.values() if not slot.outcome.done()]
        await self._report_change()
        if synchronous and (certificate := await _first_failure(loading)) is not None:
            raise _start_failed(model, version or "null", certificate)
        if synchronous:
            self._require_still(entry)
        if synchronous and not await self._ended(removed):
            raise RequestTimeout(f"Timed out while cleaning resources: {model}")
        alive = sum(slot.alive for slot in entry.slots.values())
        wanted = min(minimum, entry.min_workers)  # as another call may have said since
        overtaken = wanted if wanted < minimum else None
        return Scaled(minimum, pending=not synchronous, complete=alive >= wanted, overtaken=overtaken)

    def _resize(self, entry: ModelVersion) -> list[WorkerSlot]:
        """Bring the number of workers between its bounds; returns the removed ones."""
        number, minimum = len(entry.slots), entry.min_workers
        limit = entry.max_workers if minimum else 0
        if minimum <= number <= limit:
            return []
        if number and self._assembly.divides_cores(entry.options):
            return self._replace_all(entry)
        if number < minimum:
            entry.grow(minimum - number)
            return []
        return entry.shrink(number - limit, self._settings.drain_timeout)

    def _replace_all(self, entry: ModelVersion) -> list[WorkerSlot]:
        """Another number of workers, each on its share of the cores: the old ones finish what they run."""
        number, minimum = len(entry.slots), entry.min_workers
        restarting = f"restarting {minimum} thread(s)"
        for text in (f"removing {number} current thread(s) prior to {restarting}", restarting):
            self._events.log("WARN", "wlm.WorkLoadManager", text)
        removed = entry.shrink(number, self._settings.drain_timeout)
        entry.grow(minimum)
        return removed

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
                self._take_back(entry)
                raise RequestTimeout(f"Timed out while cleaning resources: {model}")
        self._forget_name(model)
        self._start_up.forget(entry)
        self._events.log("INFO", "wlm.ModelManager", f"Model {model} unregistered.")
        if not self._is_shared(entry.archive):
            await asyncio.to_thread(entry.archive.remove_download)
        self._drain_behind(entry, self._settings.drain_timeout)
        await self._report_change()

    def _is_shared(self, archive: Archive) -> bool:
        """Whether a registered version came from the same file: without it, a restart could not bring that one back."""
        return any(other.archive.stored_as == archive.stored_as for other in self._registry)

    async def _discard(self, archive: Archive) -> None:
        """Nothing of a failed registration stays, but a file that another version came from meanwhile."""
        if self._is_shared(archive):
            await asyncio.to_thread(archive.remove)
        else:
            await discard(archive)

    def _take_back(self, entry: ModelVersion) -> None:
        """A version whose workers do not end is registered again, without workers, unless another took its place."""
        entry.min_workers = entry.max_workers = 0
        try:
            self._registry.add(entry.name, entry.version, entry)
        except Conflict:
            self._drain_behind(entry, 0)

    async def set_default(self, model: str, version: str) -> None:
        """Make a version the default. Raises ModelNotFound, VersionNotFound."""
        self._registry.set_default(model, version)
        self._debug(f"Setting default version to {version} for model {model}")
        await self._report_change()

    def saved_models(self) -> SavedModels:
        """What a later start needs to bring all models back as they are now."""
        saved: dict[str, dict[str, SavedVersion]] = {}
        for entry in self._registry:
            default = self._registry.get(entry.name) is entry
            saved.setdefault(entry.name, {})[entry.version] = self._assembly.saved(entry, default=default)
        return saved

    async def _report_change(self) -> None:
        if self._changes is not None:
            await self._changes.models_changed(self.saved_models())

    async def close(self, limit: float) -> None:
        """Refuse new work, let the rest finish within `limit` seconds, end every worker, remove every extracted
        archive.
        """
        self._intake.close()
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
    """None once all have loaded or been removed; the certificate of the first one that failed, at once."""
    for outcome in asyncio.as_completed([asyncio.shield(slot.outcome) for slot in slots]):
        if (certificate := await outcome) is not None and certificate.cause is not Cause.STOPPED:
            return certificate
    return None


def _with_memory(entry: VersionStatus, memory: Mapping[int, int]) -> VersionStatus:
    return replace(entry, workers=tuple(replace(worker, memory=memory.get(worker.pid, 0)) for worker in entry.workers))


def _with_usage(entry: VersionStatus, usage: Mapping[int, str]) -> VersionStatus:
    workers = (
        worker if worker.device is None else replace(worker, gpu_usage=usage.get(worker.device, worker.gpu_usage))
        for worker in entry.workers
    )
    return replace(entry, workers=tuple(workers))


def _start_failed(model: str, version: str, certificate: Certificate) -> WorkerError:
    status = certificate.cause.http_status
    return WorkerError(status, f"Failed to start workers for model {model} version: {version}", certificate=certificate)
