"""Puts a model version together: options resolved, scheduler chosen, worker slots specified."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final

from modelserver.archives.archive import Archive
from modelserver.archives.naming import is_reachable
from modelserver.engine.batching import scheduler_of, version_kind
from modelserver.engine.launchers import Launch, cpu_launcher, torchrun
from modelserver.engine.load import load_frame
from modelserver.engine.placement import Placement, Seat, Slices
from modelserver.engine.ports import Events, WorkerPort, WorkerSpec
from modelserver.engine.requests import Registration
from modelserver.engine.sequence_version import MembershipReader, SequenceVersion, nothing_said
from modelserver.engine.slot import SlotFactory, SlotOwner, WorkerSlot
from modelserver.engine.version import ModelVersion
from modelserver.errors import BadRequest, WorkerInitialization
from modelserver.settings.model_options import ModelOptions, Requested, resolve, restored
from modelserver.settings.snapshot import SavedVersion
from modelserver.settings.table import Settings
from modelserver.settings.unserved import unserved_options

_MOST_PROCESSES: Final = 1024  # of a version: more than any machine runs, and few enough to be ordered in one go


class Assembly:
    """Knows what every model version of one server shares: settings, devices, worker ids, the maker of workers."""

    def __init__(
        self,
        settings: Settings,
        *,
        placement: Placement,
        port: WorkerPort,
        events: Events,
        cpus: int,
        environ: Mapping[str, str],
        cpu_launcher: Sequence[str] | None = None,
        memberships: MembershipReader = nothing_said,
    ) -> None:
        """`cpu_launcher` are its arguments, None to do without; `memberships` reads what requests say of sequences."""
        self._settings = settings
        self._placement = placement
        self._port = port
        self._events = events
        self._cpus = cpus
        self._environ = environ
        self._cpu_launcher = cpu_launcher
        self._memberships = memberships
        self._ids = count(settings.initial_worker_port)
        self._next_parallel_id = settings.initial_distribution_port

    def version(self, archive: Archive, options: ModelOptions) -> ModelVersion:
        """A version without workers, not yet registered."""
        version = version_kind(options)(
            archive=archive,
            options=options,
            scheduler=scheduler_of(options),
            slots=self._slots(archive, options),
            events=self._events,
        )
        if isinstance(version, SequenceVersion):
            version.stated = self._memberships
        bounds = self.cap(options, version.min_workers, version.max_workers, version.name)
        version.min_workers, version.max_workers = bounds
        return version

    def options(self, archive: Archive, registration: Registration) -> ModelOptions:
        """How the archive is to be served; what is odd about it is logged."""
        if archive.config_error:
            self._events.log("ERROR", "archive.model.ModelArchive", archive.config_error)
        if not is_reachable(archive.version):
            text = f"Version {archive.version!r} of model {archive.model_name} cannot be named in a URL"
            after = "REST calls reach it only while it is the default."
            self._events.log("WARN", "archive.model.ModelArchive", f"{text}: {after}")
        requested = Requested(
            batch_size=registration.batch_size,
            max_batch_delay=registration.max_batch_delay,
            initial_workers=registration.initial_workers,
            response_timeout=registration.response_timeout,
            startup_timeout=registration.startup_timeout,
            runtime=registration.runtime,
        )
        options, notices = resolve(
            archive.model_name,
            archive.version,
            requested,
            archive.config,
            self._settings,
            manifest_runtime=archive.runtime,
            gpus=self._placement.gpus,
            cpus=self._cpus,
            at_startup=registration.at_startup,
            yaml_name=(archive.manifest and archive.manifest.config_file) or "",
        )
        if registration.saved is not None:
            options = restored(options, registration.saved)
        for notice in [*notices, *unserved_options(archive.model_name, archive.version, options)]:
            self._events.log(notice.level, notice.logger, notice.message)
        check_workers(options, options.min_workers, archive.model_name)
        slices = self._slices(options)
        if slices is not None and not slices.capacity:
            level = options.parallel_level
            text = f"there are no enough gpu devices to support this parallelLever: {level}"
            self._events.log("ERROR", "wlm.ModelManager", text)
            raise WorkerInitialization(f"No enough gpu devices for model:{archive.model_name} parallelLevel:{level}")
        return options

    def saved(self, version: ModelVersion, *, default: bool) -> SavedVersion:
        """A version as it is to be restored; a handler that nobody gave is not worth keeping."""
        archive, options = version.archive, version.options
        stated = archive.manifest.handler if archive.manifest else None
        return SavedVersion(
            mar_name=archive.stored_as,
            default=default,
            min_workers=version.min_workers,
            max_workers=version.max_workers,
            batch_size=options.batch_size,
            max_batch_delay=options.max_batch_delay,
            response_timeout=options.response_timeout,
            startup_timeout=options.startup_timeout,
            runtime=options.runtime,
            parallel_level=options.parallel_level,
            handler="" if archive.handler == (stated or self._settings.default_service_handler) else archive.handler,
        )

    def cap(self, options: ModelOptions, minimum: int, maximum: int, model: str) -> tuple[int, int]:
        """The numbers of workers, lowered to what a parallel model finds GPUs for. Raises BadRequest."""
        check_workers(options, minimum, model)
        slices = self._slices(options)
        if slices is None:
            return minimum, maximum
        minimum, maximum = min(minimum, slices.capacity), min(maximum, slices.capacity)
        text = f"model {model} set minWorkers: {minimum}, maxWorkers: {maximum} for parallelLevel: "
        self._events.log("INFO", "wlm.ModelManager", f"{text}{options.parallel_level} ")
        return minimum, maximum

    def divides_cores(self, options: ModelOptions) -> bool:
        """Whether each worker of a model has cores of its own, which depend on the number of workers."""
        return self._cpu_launcher is not None and options.torchrun is None

    def _slices(self, options: ModelOptions) -> Slices | None:
        return self._placement.slices(options.device_type, options.device_ids, options.parallel_level)

    def _slots(self, archive: Archive, options: ModelOptions) -> SlotFactory:
        """Makes the worker slots of one version."""
        started = count()
        slices = self._slices(options)

        def take_seat() -> Seat:
            if slices is not None:
                return self._placement.seat(*slices.take())
            gpu = self._placement.place(options.device_type, options.device_ids, next(started))
            return Seat(gpu, gpu)

        def leave(seat: Seat) -> None:
            if slices is not None and seat.gpu is not None:
                slices.release(seat.gpu)

        def new_slot(owner: SlotOwner) -> WorkerSlot:
            number = self._new_id(options.parallel_level)
            seat = take_seat()
            launch = self._launch(archive, options, number, owner)
            spec = WorkerSpec(
                slot=number,
                generation=0,
                name=f"W-{number}-{archive.model_name}_{archive.version}",
                cwd=str(archive.directory),
                python_path=self.python_path(archive),
                environment={**seat.environment, **launch.environment},
                threads=self._threads(options, owner),
                executable=archive.python or ("python3" if options.runtime == "python3" else ""),
                concurrent=options.async_communication,
                launcher=launch.arguments,
                ranks=launch.ranks,
                to_all_ranks=launch.to_all_ranks,
                device=seat.device,
            )
            slot = WorkerSlot(
                spec=spec,
                load=load_frame(archive, options, self._settings, seat.gpu),
                startup_timeout=options.startup_timeout,
                response_timeout=options.response_timeout,
                window=options.max_retry_timeout_in_sec,
                port=self._port,
                events=self._events,
                owner=owner,
            )
            slot.ended.add_done_callback(lambda _: leave(seat))
            return slot

        return new_slot

    def _new_id(self, parallel_level: int) -> int:
        """Ids of parallel workers leave room for their ranks."""
        if not parallel_level:
            return next(self._ids)
        number = self._next_parallel_id
        self._next_parallel_id += parallel_level
        return number

    def _launch(self, archive: Archive, options: ModelOptions, number: int, owner: SlotOwner) -> Launch:
        if options.torchrun is not None:
            run = f"{archive.model_name}_{number}"
            return torchrun(options.torchrun, options.parallel_type, run, self._settings.log_location)
        if self._cpu_launcher is not None:
            return cpu_launcher(self._cpu_launcher, owner.min_workers, len(owner.slots))
        return Launch()

    def python_path(self, archive: Archive) -> tuple[str, ...]:
        """What workers of the archive find modules in."""
        inherited = [entry for entry in self._environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        return archive.worker_path(inherited)

    def _threads(self, options: ModelOptions, owner: SlotOwner) -> int:
        """Torch threads of a worker: the cores divided among the model's workers, unless somebody else has a say."""
        if options.torchrun is not None:
            return options.torchrun.omp_number_threads
        if self._cpu_launcher is not None:
            return 0  # it tells the worker itself
        if self._environ.get("OMP_NUM_THREADS", "").isdecimal():
            return int(self._environ["OMP_NUM_THREADS"])
        return max(1, self._cpus // max(1, owner.min_workers))


def check_workers(options: ModelOptions, workers: int, model: str) -> None:
    """Raises BadRequest for more workers than can be meant: a slip of the finger must not stop the server."""
    ranks = options.torchrun.nproc_per_node if options.torchrun is not None else 1
    if workers * ranks > _MOST_PROCESSES:
        number = str(workers) if ranks == 1 else f"{workers} of {ranks} processes"
        raise BadRequest(f"Too many workers for model {model}: {number}. At most {_MOST_PROCESSES} can be asked for.")
