"""Copies archives from elsewhere into the model store."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from modelserver.archives.limits import Limits
from modelserver.archives.local_file import LocalFile
from modelserver.archives.naming import remote_file_name
from modelserver.archives.object_store import KINDS, StoredObject
from modelserver.archives.source import Source, TransferFailed, pieces
from modelserver.archives.urls import AllowedUrls
from modelserver.archives.web import WebFile
from modelserver.errors import Cause, Certificate, DownloadFailed, InternalError
from modelserver.scratch import UNRECORDED, Claims

_STOPPED: Final = "the server stops"


class Downloads:
    """Fetches files into one directory; each file name is taken once, also by calls in several threads.

    `allowed` is asked about redirects only.
    """

    def __init__(
        self, directory: Path, allowed: AllowedUrls, limits: Limits | None = None, claims: Claims = UNRECORDED
    ) -> None:
        self.directory = directory
        self._allowed = allowed
        self._limits = limits or Limits()
        self._claims = claims
        self._lock = threading.Lock()
        self._running: dict[str, Source] = {}  # by file name
        self._origins: dict[str, str] = {}  # file name -> url, of all that was fetched or found
        self._stopped = False

    def find(self, url: str) -> Path | None:
        """The copy that an earlier server has fetched, unless this one has fetched another file of that name."""
        try:
            path = self.directory / remote_file_name(url)
            found = path.is_file()
        except (OSError, ValueError):
            return None
        with self._lock:
            return path if found and self._origins.setdefault(path.name, url) == url else None

    def fetch(self, url: str, *, signed: bool = False) -> Path:
        """The complete copy, under the last component of the url's path; blocks. `signed`: as S3 with KMS demands.

        Raises InternalError if that file exists, DownloadFailed for everything else; a partial file is removed.
        """
        try:
            name = remote_file_name(url)
            source = self._source(url, signed=signed)
            with self._taken(name, source):
                path = self._transfer(source, self.directory / name)
                self._origins[name] = url
                return path
        except (TransferFailed, ValueError) as error:
            raise _failed(url, Cause.DOWNLOAD, str(error)) from error
        except OSError as error:
            detail = f"{error.strerror or error}: {error.filename or self.directory}"
            raise _failed(url, Cause.STORAGE, detail) from error

    def stop(self) -> None:
        """Cut all that runs; nothing begins any more. For any thread, and it does not block."""
        with self._lock:
            self._stopped = True
            for source in self._running.values():
                source.cut(_STOPPED)

    def _source(self, url: str, *, signed: bool) -> Source:
        scheme = urlsplit(url).scheme
        if scheme in ("http", "https"):
            return WebFile(url, self._allowed, self._limits.patience, signed=signed)
        if scheme == "file":
            return LocalFile(url)
        if scheme in KINDS:
            return StoredObject(url, self._limits.patience)
        raise ValueError(f"there are no downloads from {scheme}://")

    @contextmanager
    def _taken(self, name: str, source: Source) -> Iterator[None]:
        with self._lock:
            if self._stopped:
                raise TransferFailed(_STOPPED)
            if name in self._running or (self.directory / name).exists():
                raise _exists(name)
            self._running[name] = source
        try:
            yield
        finally:
            with self._lock:
                del self._running[name]

    def _transfer(self, source: Source, target: Path) -> Path:
        claim = self._claims.claim(self.directory)
        partial = target.with_name(f".{claim}.part")
        try:
            self._save(source, partial, plain=target.name.endswith(".mar"))
            if target.exists():  # by now: somebody else uses this store, too
                raise _exists(target.name)
            return partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
            self._claims.release(claim)

    def _save(self, source: Source, target: Path, *, plain: bool) -> None:
        with closing(pieces(source, plain=plain, limits=self._limits)) as content, target.open("xb") as file:
            for piece in content:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())  # or a machine that fails now might leave the name of a file without its content


def _exists(name: str) -> InternalError:
    return InternalError(f"Model file already exists {name}")


def _failed(url: str, cause: Cause, detail: str) -> DownloadFailed:
    return DownloadFailed(f"Failed to download archive from: {url}", certificate=Certificate(cause, detail))
