"""What the pool needs to know of a worker and of its owner; the engine's own types fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from modelserver.errors import Certificate
from modelserver.wire.frames import Chunk, Hello, Loaded, Metric, Replies


class Spec(Protocol):
    """Everything a worker process needs to exist."""

    @property
    def slot(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def cwd(self) -> str: ...
    @property
    def python_path(self) -> tuple[str, ...]: ...
    @property
    def environment(self) -> dict[str, str]: ...
    @property
    def threads(self) -> int: ...
    @property
    def executable(self) -> str: ...
    @property
    def fork(self) -> bool: ...
    @property
    def concurrent(self) -> bool: ...
    @property
    def launcher(self) -> tuple[str, ...]: ...
    @property
    def ranks(self) -> int: ...
    @property
    def to_all_ranks(self) -> bool: ...


class Owner(Protocol):
    """Who is told about a worker: spawned, connected, received..., gone (once, last)."""

    def spawned(self, pid: int, command: Sequence[str], why: str) -> None:
        """The process exists; `why` says why it was not forked but runs a fresh interpreter, "" if it was forked."""

    def connected(self, hello: Hello) -> None:
        """The process has connected and may be sent a `Load`."""

    def received(self, frame: Loaded | Replies | Chunk) -> None:
        """A frame arrived."""

    def reported(self, metrics: list[Metric]) -> None:
        """Metric updates outside a batch arrived."""

    def printed(self, stream: str, line: str) -> None:
        """The process wrote a line."""

    def gone(self, certificate: Certificate, *, unread: int) -> None:
        """The process is dead and reaped, and its socket read to the end."""
