"""Puts a model version together: options resolved, scheduler chosen, worker slots specified."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from modelserver.archives.archive import Archive
from modelserver.engine.batcher import DynamicBatcher
from modelserver.engine.placement import Placement
from modelserver.engine.ports import Events, WorkerPort, WorkerSpec
from modelserver.engine.requests import Registration
from modelserver.engine.slot import SlotFactory, SlotOwner, WorkerSlot
from modelserver.engine.version import ModelVersion
from modelserver.settings.model_options import ModelOptions, Requested, resolve
from modelserver.settings.table import Settings
from modelserver.settings.unserved import unserved_options
from modelserver.wire.frames import Load


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
    ) -> None:
        self._settings = settings
        self._placement = placement
        self._port = port
        self._events = events
        self._cpus = cpus
        self._environ = environ
        self._ids = count(settings.initial_worker_port)

    def version(self, archive: Archive, registration: Registration) -> ModelVersion:
        """A version without workers, not yet registered."""
        options = self._options(archive, registration)
        scheduler = DynamicBatcher(
            batch_size=options.batch_size,
            max_delay=options.max_batch_delay / 1000,
            capacity=options.job_queue_size,
        )
        return ModelVersion(
            archive=archive,
            options=options,
            scheduler=scheduler,
            slots=self._slots(archive, options),
            events=self._events,
        )

    def _options(self, archive: Archive, registration: Registration) -> ModelOptions:
        if archive.config_error:
            self._events.log("ERROR", "archive.model.ModelArchive", archive.config_error)
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
        )
        for notice in [*notices, *unserved_options(archive.model_name, archive.version, options)]:
            self._events.log(notice.level, notice.logger, notice.message)
        return options

    def _slots(self, archive: Archive, options: ModelOptions) -> SlotFactory:
        """Makes the worker slots of one version."""
        started = count()

        def new_slot(owner: SlotOwner) -> WorkerSlot:
            number = next(self._ids)
            gpu = self._placement.place(options.device_type, options.device_ids, next(started))
            spec = WorkerSpec(
                slot=number,
                generation=0,
                name=f"W-{number}-{archive.model_name}_{archive.version}",
                cwd=str(archive.directory),
                python_path=self._python_path(archive),
                threads=self._threads(options),
                executable="python3" if options.runtime == "python3" else "",
            )
            return WorkerSlot(
                spec=spec,
                load=self._load(archive, options, gpu),
                startup_timeout=options.startup_timeout,
                window=options.max_retry_timeout_in_sec,
                port=self._port,
                events=self._events,
                owner=owner,
            )

        return new_slot

    def _load(self, archive: Archive, options: ModelOptions, gpu: int | None) -> Load:
        settings = self._settings
        return Load(
            model_name=archive.model_name,
            model_dir=str(archive.directory),
            handler=archive.handler,
            batch_size=max(1, options.batch_size),
            gpu=gpu,
            envelope=settings.service_envelope,
            limit_max_image_pixels=settings.limit_max_image_pixels,
            max_response_size=settings.max_response_size,
            metrics_config=str(settings.metrics_config),
        )

    def _python_path(self, archive: Archive) -> tuple[str, ...]:
        """A handler's own folder, then what the server inherited, then the model."""
        model = archive.python_path
        own = model[:1] if Path(model[0]) != archive.directory.resolve() else ()
        inherited = [entry for entry in self._environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        return (*own, *inherited, *model[len(own) :])

    def _threads(self, options: ModelOptions) -> int:
        """Torch threads of a CPU worker: the cores divided among the model's workers, unless the operator has said."""
        if self._environ.get("OMP_NUM_THREADS", "").isdecimal():
            return int(self._environ["OMP_NUM_THREADS"])
        return max(1, self._cpus // max(1, options.min_workers))
