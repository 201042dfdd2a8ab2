"""Open Inference beside the inference: who the server is, which models are ready, and which there are."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from modelserver.dialect.ports import Engine, Telemetry
from modelserver.engine.requests import Registration, VersionStatus
from modelserver.errors import BadRequest, Conflict, ModelNotFound

SERVER_NAME: Final = "Torchserve"
EXTENSIONS: Final = ("kserve", "kubeflow")
READY: Final = "READY"
UNAVAILABLE: Final = "UNAVAILABLE"


class Entry(NamedTuple):
    """A model version in the index of the repository."""

    name: str
    version: str
    state: str  # READY or UNAVAILABLE
    reason: str  # "" if it is ready


def is_ready(version: VersionStatus) -> bool:
    """It has the workers it should have, at least one."""
    return sum(worker.ready for worker in version.workers) >= max(1, version.min_workers)


def repository_index(engine: Engine, *, ready_only: bool) -> list[Entry]:
    """All registered versions, by the names of their models."""
    versions = [version for name, _ in engine.list_models() for version in engine.describe(name, "all")]
    entries = [Entry(version.model_name, version.model_version, *_state_of(version)) for version in versions]
    return [entry for entry in entries if entry.state == READY] if ready_only else entries


def _state_of(version: VersionStatus) -> tuple[str, str]:
    if is_ready(version):
        return READY, ""
    deaths = [worker.certificate.detail for worker in version.workers if worker.certificate is not None]
    return UNAVAILABLE, deaths[0] if deaths else "workers are loading" if version.workers else "no workers"


async def statistics(
    engine: Engine, telemetry: Telemetry, name: str | None, version: str | None
) -> list[dict[str, Any]]:
    """Of one version, of all versions of a model (version None), or of all models (name None).

    Raises ModelNotFound, VersionNotFound.
    """
    names = [name for name, _ in engine.list_models()] if name is None else [name]
    asked = [(each, status.model_version) for each in names for status in engine.describe(each, version or "all")]
    found = await telemetry.statistics()
    known = [each for each in asked if each in found]  # one may have gone while we waited
    return [{"name": name, "version": version, **found[name, version]} for name, version in known]


async def load_model(engine: Engine, name: str, workers: int) -> None:
    """Register the archive or directory of this name from the model store, unless the model is there already.

    Returns when its workers are ready. Raises BadRequest, ModelNotFound, and what the engine raises.
    """
    if not name:
        raise BadRequest("Parameter model_name is required.")
    if _is_registered(engine, name):
        return
    try:
        await _register(engine, f"{name}.mar", name, workers)
    except ModelNotFound:
        await _register(engine, name, name, workers)


async def _register(engine: Engine, url: str, name: str, workers: int) -> None:
    try:
        await engine.register(Registration(url=url, model_name=name, initial_workers=workers))
    except Conflict:
        pass  # another call was faster


async def unload_model(engine: Engine, name: str) -> None:
    """Unregister all versions of a model. Raises BadRequest, ModelNotFound, and what the engine raises."""
    if not name:
        raise BadRequest("Parameter model_name is required.")
    (default,) = engine.describe(name, None)
    versions = [version.model_version for version in engine.describe(name, "all")]
    versions.sort(key=lambda version: version == default.model_version)  # which cannot go while there are others
    for version in versions:
        await engine.unregister(name, version)


def _is_registered(engine: Engine, name: str) -> bool:
    try:
        engine.require(name, None)
    except ModelNotFound:
        return False
    return True
