"""Archives as a start would open them: manifest, configuration, packages, and the import of the handler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from modelserver.archives.archive import Archive
from modelserver.archives.naming import is_reachable, is_remote
from modelserver.archives.store import ArchiveStore
from modelserver.archives.urls import AllowedUrls
from modelserver.checkup import differences
from modelserver.checkup.configuration import of_notice
from modelserver.checkup.contents import examine_contents
from modelserver.checkup.finding import Finding, Severity, error, remark, warning
from modelserver.checkup.rehearsals import Rehearsals, TookTooLong
from modelserver.checkup.targets import Target, find_targets, stored_name
from modelserver.checkup.troubles import (
    missing_files,
    missing_packages,
    of_error,
    of_failure,
    too_few_gpus,
    too_many_workers,
)
from modelserver.engine.placement import Placement
from modelserver.errors import ModelError, ServerError
from modelserver.settings.model_options import ModelOptions, Requested, resolve, restored
from modelserver.settings.table import Settings
from modelserver.settings.unserved import unserved_options

_AT_ONCE = 4  # every rehearsal is a Python that may import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What options depend on."""

    placement: Placement
    cpus: int


def examine_models(
    settings: Settings, store: ArchiveStore, rehearsals: Rehearsals, machine: Machine
) -> Iterator[Finding]:
    """Every archive that is loaded or lies in the model store, in order. The import of a handler runs its code."""
    assert settings.model_store is not None
    try:
        targets = find_targets(settings, settings.model_store)
    except OSError as failure:
        yield error(settings.source("model_store"), f"the model store cannot be listed: {failure}", "Correct it.")
        return
    if not any(target.loaded for target in targets):
        yield remark("models", "none is loaded at the start", "Name some by --models or load_models, or register them.")
    examination = Examination(settings, store, rehearsals, machine)
    reports = []
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        try:
            for report in threads.map(examination.report, targets):
                reports.append(report)
                yield from report.findings
        except BaseException:  # somebody has had enough
            rehearsals.stop()
            threads.shutdown(cancel_futures=True)
            raise
    yield from _twice(targets, reports)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one archive."""

    model: tuple[str, str] | None  # name and version; None if it could not be opened
    findings: tuple[Finding, ...]


class Examination:
    """Looks at one archive after the other."""

    def __init__(self, settings: Settings, store: ArchiveStore, rehearsals: Rehearsals, machine: Machine) -> None:
        self._settings = settings
        self._store = store
        self._rehearsals = rehearsals
        self._machine = machine

    def report(self, target: Target) -> Report:
        """All about one archive; what nobody loads at the start is no error yet. For any thread. Raises Stopped."""
        archive, findings = self._open(target)
        if archive is not None:
            try:
                findings += self._examine(target, archive)
            finally:
                archive.remove()
        if not target.loaded:
            findings = [finding.at_most(Severity.WARN) for finding in findings]
        model = None if archive is None else (archive.model_name, archive.version)
        return Report(model, tuple(findings))

    def _open(self, target: Target) -> tuple[Archive | None, list[Finding]]:
        url = target.url
        if is_remote(url):
            if not AllowedUrls([pattern.pattern for pattern in self._settings.allowed_urls]).admit(url):
                text = f"Given URL {url} does not match any allowed URL(s)"
                return None, [error(url, text, "Allow it by allowed_urls.")]
            url = stored_name(url)
            if not (url and self._is_stored(url)):
                return None, [remark(target.url, "it is downloaded when the server starts, and not looked at here")]
        if target.saved is not None and not self._is_stored(url):
            text = f"Model archive file for model {target.name} not found in model store: the server does not start"
            return None, [error(url, text, "Put it back, or remove the model from model_snapshot.")]
        try:
            return self._unpack(target, url), []
        except ServerError as failure:
            return None, [of_error(url, failure)]

    def _path(self, target: Target) -> Path:
        assert self._settings.model_store is not None
        return self._settings.model_store / stored_name(target.url)

    def _is_stored(self, name: str) -> bool:
        assert self._settings.model_store is not None
        try:
            return (self._settings.model_store / name).exists()
        except OSError:
            return False

    def _unpack(self, target: Target, url: str) -> Archive:
        saved = target.saved
        return self._store.open(
            url,
            model_name=target.name,
            handler=saved.handler if saved else None,
            runtime=saved.runtime if saved else None,
            default_handler=self._settings.default_service_handler,
            default_name=target.default_name,
            salvage=saved is not None,
        )

    def _examine(self, target: Target, archive: Archive) -> list[Finding]:
        where = target.url
        options, findings = self._options(target, archive)
        if archive.config_error:
            findings.append(error(where, f"{archive.config_error}: no worker loads", "Mend that file, pack again."))
        if not is_reachable(archive.version):
            why = f"no URL can name version {archive.version!r}: REST calls reach it only while it is the default"
            findings.append(warning(where, why, "Pack again, with another --version."))
        findings += differences.of_model(where, archive.config, options)
        findings += missing_files(where, archive)
        findings += too_many_workers(where, archive, options)
        if not archive.directory.is_symlink():  # an operator's directory may hold anything
            findings += examine_contents(where, self._path(target), archive)
        if not (self._settings.install_py_dep_per_model or options.use_venv or options.runtime == "python3"):
            findings += missing_packages(where, archive)
        if slices := self._machine.placement.slices(options.device_type, options.device_ids, options.parallel_level):
            findings += [too_few_gpus(where, options)] if not slices.capacity else []
        return findings + self._rehearse(where, archive, options)

    def _options(self, target: Target, archive: Archive) -> tuple[ModelOptions, list[Finding]]:
        """How the model would be served, and what the log would say about that."""
        options, notices = resolve(
            archive.model_name,
            archive.version,
            Requested(),
            archive.config,
            self._settings,
            manifest_runtime=archive.runtime,
            gpus=self._machine.placement.gpus,
            cpus=self._machine.cpus,
            at_startup=target.startup,
            yaml_name=(archive.manifest and archive.manifest.config_file) or "model configuration",
        )
        if target.saved is not None:
            options = restored(options, target.saved)
        notices += unserved_options(archive.model_name, archive.version, options)
        return options, [of_notice(notice, target.url) for notice in notices]

    def _rehearse(self, where: str, archive: Archive, options: ModelOptions) -> list[Finding]:
        try:
            archive = self._rehearsals.install(archive, options)
            failures = self._rehearsals.failures(archive, options)
            return [of_failure(where, failure, f"{archive.directory}/") for failure in failures]
        except ModelError as failure:
            return [of_error(where, failure)]
        except TookTooLong as late:
            return [error(where, str(late), late.remedy)]


def _twice(targets: Sequence[Target], reports: Sequence[Report]) -> Iterator[Finding]:
    """Start-up models that are the same version of the same name: the second is left out."""
    seen: dict[tuple[str, str], str] = {}
    for target, report in zip(targets, reports, strict=True):
        if target.loaded and report.model is not None:
            first = seen.setdefault(report.model, target.url)
            if first != target.url:
                name, version = report.model
                text = f"version {version} of model {name} comes from {first} already: this archive is left out"
                yield warning(target.url, text, "Name it otherwise, or pack it with a version of its own.")
