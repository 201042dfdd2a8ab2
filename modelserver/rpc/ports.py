"""What the methods need from others: an engine to ask, a record keeper to tell, keys to check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from modelserver.engine.job import Job
from modelserver.engine.requests import Registered, Registration, Scaled, VersionStatus

Kind = Literal["management", "inference", "API"]


class Engine(Protocol):
    """The part of `engine.Engine` that gRPC calls."""

    def submit(self, job: Job, version: str | None) -> None:
        """Queue a job for the named or default version; `job.done` is called later."""

    def cancel(self, job: Job) -> None:
        """The client is gone: `job.done` is not called any more."""

    def healthy(self) -> bool:
        """Every model's default version has its minimum of healthy workers."""

    def list_models(self) -> list[tuple[str, str]]:
        """(name, url of the default version), sorted by name."""

    async def observe(self, model: str, version: str | None) -> list[VersionStatus]:
        """The default version (None), one version, or every version (`all`)."""

    async def register(self, registration: Registration) -> Registered:
        """Register one model version."""

    async def scale(self, model: str, version: str | None, minimum: int, maximum: int, *, synchronous: bool) -> Scaled:
        """Change the number of workers."""

    async def unregister(self, model: str, version: str | None) -> None:
        """Remove a version."""

    async def set_default(self, model: str, version: str) -> None:
        """Make a version the default."""


class Telemetry(Protocol):
    """The part of telemetry that gRPC calls."""

    def request_done(
        self,
        remote: str,
        method: str,
        target: str,
        version: str,
        status: int,
        received: float,
        responded: float,
        worker: str = "",
        model: str = "",
        label: str = "",
        request_id: str = "",
        sent: float = 0.0,
        replied: float = 0.0,
        ok: bool = False,
    ) -> None:
        """One call is over (`method` "gRPC"), or one job of a stream (`method` "", status 0). Monotonic seconds."""

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        """One server line."""


class Authorization(Protocol):
    """The keys of the server."""

    def require(self, header: bytes, kinds: Iterable[Kind]) -> None:
        """Raises InvalidKey unless the value of an `authorization` header shows a key of one of these kinds."""
