"""Archives from web servers: `http://` and `https://` urls, redirects included."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from modelserver.archives.signature import AwsKeys
from modelserver.archives.urls import AllowedUrls, check_web_url, redirected

_REDIRECTIONS: Final = 10
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_SLOWEST: Final = 1024  # bytes a second, or it counts as no progress

_Watch = Callable[[socket.socket], None]


class WebFile:
    """The answer to a GET. `allowed` must admit every url that a redirect leads to."""

    def __init__(self, url: str, allowed: AllowedUrls, patience: float, *, signed: bool = False) -> None:
        """Raises ValueError, if it is to be signed also for want of the keys."""
        check_web_url(url)
        self._url = url
        self._allowed = allowed
        self._patience = patience
        self._keys = AwsKeys.of(os.environ) if signed else None
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._ended: str | None = None
        self._response: http.client.HTTPResponse | None = None
        self._pace = _Pace(patience)
        self._received = 0
        self.size: int | None = None
        self.encoding = ""

    def open(self) -> None:
        """Ask, and follow the redirects. Raises OSError, ValueError, HTTPException."""
        opener = _make_opener(self._watch)
        url = self._url
        for _ in range(_REDIRECTIONS + 1):
            response = self._ask(opener, url)
            location = response.headers["Location"] if response.status in _REDIRECTS else None
            if location is None:
                self._accept(response)
                return
            response.close()
            url = redirected(url, location, self._allowed)
            check_web_url(url)
        raise OSError(f"more than {_REDIRECTIONS} redirects")

    def read(self, limit: int) -> bytes:
        """Raises OSError, HTTPException."""
        assert self._response is not None
        try:
            piece = self._response.read1(limit)
        except TimeoutError as error:
            raise OSError(self._pace.complaint) from error
        finally:
            self._check()
        self._received += len(piece)
        # http.client ends a body that was cut short like a complete one.
        if not piece and self.size not in (None, self._received):
            raise OSError(f"got {self._received} of {self.size} bytes")
        self._pace.count(len(piece))
        return piece

    def cut(self, reason: str) -> None:
        """Shut the connection, from any thread."""
        with self._lock:
            self._ended = self._ended or reason
            for connection in self._sockets:
                _shut(connection)

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()

    def _ask(self, opener: urllib.request.OpenerDirector, url: str) -> http.client.HTTPResponse:
        """The head of an answer; not even one that comes byte by byte takes longer than it may."""
        headers = self._keys.sign(url, datetime.now(UTC)) if self._keys else {}
        slow = f"no answer within {self._patience:g} s"
        alarm = threading.Timer(self._patience, self.cut, [slow])
        alarm.daemon = True
        alarm.start()
        try:
            response = opener.open(urllib.request.Request(url, headers=headers), timeout=self._patience)
            assert isinstance(response, http.client.HTTPResponse)
            self._response = response
            return response
        except OSError as error:
            if isinstance(getattr(error, "reason", error), TimeoutError):  # urllib wraps some
                raise OSError(slow) from error
            raise
        finally:
            alarm.cancel()
            self._check()

    def _accept(self, response: http.client.HTTPResponse) -> None:
        if response.status != 200:
            raise OSError(f"HTTP {response.status} {response.reason}".rstrip())
        self.size = response.length
        self.encoding = (response.headers["Content-Encoding"] or "").strip().lower()
        self._pace.begin()

    def _watch(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connection)
            if self._ended is not None:
                _shut(connection)

    def _check(self) -> None:
        """What was cut looks like anything, even like the end of the content."""
        if self._ended is not None:
            raise OSError(self._ended)


class _Pace:
    """Tells a slow transfer from one that stands still."""

    def __init__(self, patience: float) -> None:
        self.complaint = f"no progress for {patience:g} s"
        self._patience = patience
        self.begin()

    def begin(self) -> None:
        """A new window."""
        self._since = time.monotonic()
        self._bytes = 0

    def count(self, received: int) -> None:
        """Raises OSError."""
        self._bytes += received
        if received and time.monotonic() - self._since > self._patience:
            if self._bytes < _SLOWEST * self._patience:
                raise OSError(self.complaint)
            self.begin()


class _Connection(http.client.HTTPConnection):
    def __init__(self, watch: _Watch, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._watch = watch

    def connect(self) -> None:
        super().connect()
        self._watch(self.sock)


class _TlsConnection(http.client.HTTPSConnection):
    def __init__(self, watch: _Watch, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._watch = watch

    def connect(self) -> None:
        super().connect()
        self._watch(self.sock)


class _Connections(urllib.request.HTTPHandler):
    """Makes connections that somebody watches."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Called by urllib."""
        return self.do_open(partial(_Connection, self._watch), request)


class _TlsConnections(urllib.request.HTTPSHandler):
    """The same for https."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Called by urllib."""
        context = ssl.create_default_context()
        return self.do_open(partial(_TlsConnection, self._watch), request, context=context)


def _make_opener(watch: _Watch) -> urllib.request.OpenerDirector:
    """Only the handlers of urllib that are wanted: none for other schemes, none that follows redirects by itself."""
    opener = urllib.request.OpenerDirector()
    opener.addheaders = [("User-Agent", "modelserver")]
    for handler in (urllib.request.ProxyHandler(), _Connections(watch), _TlsConnections(watch)):
        opener.add_handler(handler)
    return opener


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it may be over already
        connection.shutdown(socket.SHUT_RDWR)
