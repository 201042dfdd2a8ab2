"""What an archive is copied from: one class per kind of url implements this."""

from __future__ import annotations

import gzip
from collections.abc import Generator
from typing import IO, Final, Protocol, cast

from modelserver.archives.limits import Limits

CHUNK: Final = 1 << 20  # bytes


class Source(Protocol):
    """One file elsewhere. Everything but `cut` is called by one thread; any error may be raised on the way."""

    def open(self) -> None:
        """Begin."""

    @property
    def size(self) -> int | None:
        """Bytes that will come; None if nobody says."""

    @property
    def encoding(self) -> str:
        """What has been done to the content for its transfer; "" if nothing."""

    def read(self, limit: int) -> bytes:
        """Some bytes, b"" at the end; an end that comes too early is an error."""

    def cut(self, reason: str) -> None:
        """End it, from another thread; whoever reads gets an error with this reason."""

    def close(self) -> None:
        """Give everything back."""


class TransferFailed(Exception):
    """An archive did not arrive; the text is the reason, in one line."""


def pieces(source: Source, *, plain: bool, limits: Limits) -> Generator[bytes, None, None]:
    """The content, piece by piece; `plain` asks for it as it was before it was encoded for the transfer.

    Raises TransferFailed.
    """
    try:
        source.open()
        _check_size(source.size or 0, limits)
        reader = _decoded(source, limits) if plain else source
        total = 0
        while piece := reader.read(CHUNK):
            total += len(piece)
            _check_size(total, limits)
            yield piece
    # The clients of object stores raise what they like.
    except Exception as error:
        raise TransferFailed(_reason(error)) from error
    finally:
        source.close()


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.size:
        raise TransferFailed(f"the archive is larger than {limits.size} bytes (max_archive_size)")


class _Counted:
    """A source before it is decoded: content that decodes to nothing must not go on for ever."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._total = 0

    def read(self, limit: int) -> bytes:
        """Raises TransferFailed, and what the source raises."""
        piece = self._source.read(limit)
        self._total += len(piece)
        _check_size(self._total, self._limits)
        return piece


def _decoded(source: Source, limits: Limits) -> Source | gzip.GzipFile:
    """Nobody has asked for an encoding, but some servers choose one nevertheless."""
    if source.encoding in ("", "identity"):
        return source
    if source.encoding in ("gzip", "x-gzip"):
        return gzip.GzipFile(fileobj=cast(IO[bytes], _Counted(source, limits)), mode="rb")
    raise TransferFailed(f"the server sends it with the encoding {source.encoding}")


def _reason(error: BaseException) -> str:
    """One line; what wraps a failure of the system only to name it again is left out."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, OSError):
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
