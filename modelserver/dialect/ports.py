"""What REST and gRPC need from others: an engine to ask and a record keeper to tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from modelserver.engine.job import Job
from modelserver.engine.requests import Ailment, Registered, Registration, Scaled, VersionStatus


class Engine(Protocol):
    """The part of `engine.Engine` that clients reach."""

    def submit(self, job: Job, version: str | None) -> None:
        """Queue a job for the named or default version; `job.done` is called later."""

    def cancel(self, job: Job) -> None:
        """The client is gone: `job.done` is not called any more."""

    def healthy(self) -> bool:
        """Every model's default version has its minimum of healthy workers."""

    def ailments(self) -> list[Ailment]:
        """Why it is not healthy."""

    def unready(self) -> list[str]:
        """Why no work should come yet, or any more, where the server is to tell: models of the start, or its end."""

    def require(self, model: str, version: str | None) -> None:
        """Raises ModelNotFound, VersionNotFound unless the named or default version is registered."""

    def startup_models(self) -> list[str]:
        """Names given at start-up that are still registered."""

    def list_models(self) -> list[tuple[str, str]]:
        """(name, url of the default version), sorted by name."""

    def describe(self, model: str, version: str | None) -> list[VersionStatus]:
        """The default version (None), one version, or every version (`all`)."""

    async def observe(self, model: str, version: str | None) -> list[VersionStatus]:
        """What `describe` tells, and how busy the workers' GPUs are."""

    async def register(self, registration: Registration) -> Registered:
        """Register one model version."""

    async def scale(self, model: str, version: str | None, minimum: int, maximum: int, *, synchronous: bool) -> Scaled:
        """Change the number of workers."""

    async def unregister(self, model: str, version: str | None) -> None:
        """Remove a version."""

    async def set_default(self, model: str, version: str) -> None:
        """Make a version the default."""


class Telemetry(Protocol):
    """The part of telemetry that hears of what clients did."""

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
        """One response is over, or the client of an accepted job left (HTTP status 0). Seconds, monotonic clock.

        One that comes in pieces is recorded when it begins (not `ok`, never replied), and with status -1 when it ends.

        `method` is "gRPC" for a call, and "" for one job of a stream.
        """

    def request_traced(
        self,
        *,
        method: str,
        target: str,
        status: int,
        received: float,
        responded: float,
        worker: str,
        model: str,
        label: str,
        request_id: str,
        sent: float,
        replied: float,
        handler: float,
        traceparent: str,
        tracestate: str,
    ) -> None:
        """A prediction is over, for which there is to be a trace. `handler`: seconds in the handler, 0 if unknown."""

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        """One server line."""

    async def statistics(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        """By model and version what the statistics extension of Open Inference tells, but for these two."""
