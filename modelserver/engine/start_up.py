"""The models that the server has started with, until each has been ready once."""

from __future__ import annotations

from collections.abc import Iterable

from modelserver.engine.requests import VersionStatus
from modelserver.engine.version import ModelVersion


class StartUp:
    """What is not ready yet; what has been is not looked at again, whatever becomes of it."""

    def __init__(self, versions: Iterable[ModelVersion] = (), failed: Iterable[str] = ()) -> None:
        """`failed`: what could not even be registered."""
        self._loading = [version for version in versions if version.min_workers]
        self._failed = [f"{name} (not registered)" for name in failed]

    def forget(self, version: ModelVersion) -> None:
        """It has been unregistered."""
        self._loading = [other for other in self._loading if other is not version]

    def awaited(self) -> list[str]:
        """Each with the reason."""
        statuses = {version: version.status(loaded_at_startup=True) for version in self._loading}
        self._loading = [version for version, status in statuses.items() if not _is_ready(status)]
        return [*self._failed, *(_described(statuses[version]) for version in self._loading)]


def _is_ready(status: VersionStatus) -> bool:
    return sum(worker.ready for worker in status.workers) >= status.min_workers


def _described(status: VersionStatus) -> str:
    deaths = [worker.certificate.detail for worker in status.workers if worker.certificate is not None]
    reason = deaths[0] if deaths else "workers are loading"
    return f"{status.model_name} {status.model_version} ({reason})"
