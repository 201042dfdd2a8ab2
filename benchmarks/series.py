"""Servers that are measured one after the other, since each takes what the machine has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from benchmarks.client import NotInTime, Unreachable
from benchmarks.contenders import Contender
from benchmarks.figures import Samples
from benchmarks.load import Say
from benchmarks.plan import Plan
from benchmarks.servers import CallFailed
from benchmarks.wrk import UnreadableReport


class Stoppable(Protocol):
    """A server."""

    def stop(self) -> None: ...


ServerT = TypeVar("ServerT", bound=Stoppable)


class Series(ABC, Generic[ServerT]):
    """A server that cannot be measured costs its own figures: the others go on without it."""

    what: ClassVar[str]  # is measured

    def __init__(
        self, contenders: Sequence[Contender], plan: Plan, directory: Path, samples: Samples, say: Say
    ) -> None:
        self._contenders = contenders
        self._plan = plan
        self._directory = directory
        self._samples = samples
        self._say = say

    def run(self) -> None:
        """All contenders that can be launched for it."""
        for contender in self._contenders:
            server = self._launch(contender, self._directory / f"{contender.name}-{self.what.lower()}")
            if server is not None:
                try:
                    self._run(contender, server)
                except (CallFailed, NotInTime, Unreachable, UnreadableReport) as error:
                    self._samples.discard(contender.title, self.what, str(error))
                finally:
                    server.stop()

    @abstractmethod
    def _launch(self, contender: Contender, directory: Path) -> ServerT | None:
        """The server, not started; None for a contender that this is not measured of."""

    @abstractmethod
    def _run(self, contender: Contender, server: ServerT) -> None:
        """Start it and take the samples."""
