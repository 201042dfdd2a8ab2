"""One check of everything, concern by concern."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from modelserver.archives.store import ArchiveStore
from modelserver.checkup import differences
from modelserver.checkup.configuration import examine_settings, of_notice
from modelserver.checkup.finding import Finding, error, remark
from modelserver.checkup.leftovers import examine_installation
from modelserver.checkup.models import Machine, examine_models
from modelserver.checkup.places import examine_places
from modelserver.checkup.ports import examine_ports
from modelserver.checkup.rehearsals import Rehearsals
from modelserver.checkup.telemetry_files import examine_telemetry_files
from modelserver.engine.placement import Placement
from modelserver.errors import ConfigurationError
from modelserver.identity.pem_pair import prepare_pem_pair
from modelserver.identity.tls import prepare_tls
from modelserver.pool.devices import count_cpus, find_devices
from modelserver.scratch import RunDirectory
from modelserver.settings.command_line import CommandLine
from modelserver.settings.loading import examine
from modelserver.settings.table import Settings


def check_up(arguments: CommandLine, environ: Mapping[str, str], cwd: Path) -> Iterator[Finding]:
    """Everything that is to be said about a start with these flags, as it is found. Blocks."""
    yield from examine_installation()
    try:
        settings, faults = examine(arguments, environ, cwd)
    except ConfigurationError as failure:
        yield error("configuration", str(failure), "Correct it.")
        return
    yield from examine_settings(settings, faults)
    yield from differences.of_settings(settings, environ)
    yield from examine_places(settings, arguments, cwd)
    yield from examine_telemetry_files(settings, environ)
    if not faults:
        yield from examine_ports(settings)
    try:
        with RunDirectory.make(settings.temp_dir) as scratch:
            if not faults:
                yield from _examine_tls(settings, scratch.path)
            yield from _examine_models(settings, environ, scratch)
    except OSError as failure:
        yield error("temp_dir", f"nothing can be unpacked in {settings.temp_dir}: {failure}", "Make room there.")


def _examine_tls(settings: Settings, folder: Path) -> Iterator[Finding]:
    try:
        spoken = prepare_tls(settings, folder) or prepare_pem_pair(settings)
    except ConfigurationError as failure:
        yield error("TLS", str(failure), "Correct it.")
        return
    for notice in spoken.notices if spoken else ():
        yield of_notice(notice, "TLS")


def _examine_models(settings: Settings, environ: Mapping[str, str], scratch: RunDirectory) -> Iterator[Finding]:
    if settings.model_store is None or not settings.model_store.is_dir():
        return
    try:
        devices = find_devices(environ)
    except ConfigurationError as failure:
        yield error("devices", str(failure), "Correct it.")
        return
    for text in devices.warnings:
        yield remark("devices", text)
    machine = Machine(placement=Placement(settings.usable_gpus(devices.count)), cpus=count_cpus())
    rehearsals = Rehearsals(settings, environ, scratch.path)
    yield from examine_models(settings, ArchiveStore.of(settings, scratch), rehearsals, machine)
