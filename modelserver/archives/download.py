"""Copies archives from `http(s)://` and `file://` urls into the model store."""

from __future__ import annotations

import http.client
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from modelserver.archives.naming import remote_file_name
from modelserver.errors import DownloadFailed, InternalError
from modelserver.scratch import UNRECORDED, Claims

# Seconds without progress, in connecting and in each read.
TIMEOUT: Final = 60.0

_CHUNK: Final = 1 << 20  # bytes


class Downloads:
    """Fetches files into one directory; each file name is taken once, also by calls in several threads."""

    def __init__(self, directory: Path, timeout: float = TIMEOUT, claims: Claims = UNRECORDED) -> None:
        self.directory = directory
        self.timeout = timeout
        self._claims = claims
        self._running: set[str] = set()
        self._lock = threading.Lock()
        self._opener = _make_opener()

    def fetch(self, url: str) -> Path:
        """The complete copy, under the last component of the url's path.

        Raises InternalError if that file exists, DownloadFailed for everything else; a partial file is removed.
        """
        try:
            name = remote_file_name(url)
            with self._claim(name):
                return self._transfer(url, self.directory / name)
        except urllib.error.HTTPError as error:
            error.close()
            raise _failed(url) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _failed(url) from error

    @contextmanager
    def _claim(self, name: str) -> Iterator[None]:
        with self._lock:
            if name in self._running or (self.directory / name).exists():
                raise InternalError(f"Model file already exists {name}")
            self._running.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(name)

    def _transfer(self, url: str, target: Path) -> Path:
        claim = self._claims.claim(self.directory)
        partial = target.with_name(f".{claim}.part")
        try:
            self._save(url, partial)
            return partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)
            self._claims.release(claim)

    def _save(self, url: str, target: Path) -> None:
        with self._opener.open(url, timeout=self.timeout) as response:
            with target.open("xb") as file:
                shutil.copyfileobj(response, file, _CHUNK)
                size = file.tell()
            # http.client ends a body that was cut short like a complete one.
            expected = response.headers["Content-Length"]
            if expected is not None and size != int(expected):
                raise OSError(f"got {size} of {expected} bytes")


def _make_opener() -> urllib.request.OpenerDirector:
    """The handlers of urllib without ftp and data, so that no redirect can lead there."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.FileHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _failed(url: str) -> DownloadFailed:
    return DownloadFailed(f"Failed to download archive from: {url}")
