"""A web server whose answers a test writes: whole ones, or whatever bytes it likes."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

Script = Callable[[BaseHTTPRequestHandler], None]


class Origin(ThreadingHTTPServer):
    """Listens on 127.0.0.1 while the `with` lasts; paths without an answer are 404."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self._scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.asked: list[str] = []  # path and query of every request
        self.headers: list[dict[str, str]] = []  # of the same requests, names in lower case
        self.release = threading.Event()  # set at the end, at the latest: what hangs waits for it
        self.hung = threading.Event()  # somebody hangs
        self._scripts: dict[str, Script] = {}
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def url(self, path: str) -> str:
        """The url of a path that begins with a slash."""
        return f"{self._scheme}://127.0.0.1:{self.server_address[1]}{path}"

    def script(self, path: str, script: Script) -> str:
        """From now on the script answers requests of this path; returns the url."""
        self._scripts[path] = script
        return self.url(path)

    def script_of(self, target: str) -> Script:
        """What answers this path, whatever the query."""
        return self._scripts.get(target.partition("?")[0], lambda answer: answer.send_error(404))

    def give(self, path: str, content: bytes, status: int = 200, **headers: str) -> str:
        """Answer with this; `Content_Type` is the header Content-Type. Returns the url."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            start(request, status, Content_Length=str(len(content)), **headers)
            request.wfile.write(content)

        return self.script(path, answer)

    def redirect(self, path: str, location: str, status: int = 302) -> str:
        """Redirect; returns the url."""
        return self.script(path, lambda request: start(request, status, Location=location, Content_Length="0"))

    def hang(self) -> None:
        """Called by scripts: do nothing until the test, or its end, allows more."""
        self.hung.set()
        self.release.wait()

    def drip(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        """Called by scripts: byte after byte, a little pause before each, until the other side has had enough."""
        with suppress(OSError):
            for byte in content:
                if self.release.wait(0.02):
                    return
                request.wfile.write(bytes([byte]))

    def handle_error(self, request: object, client_address: object) -> None:
        """Called when a client left before its answer was complete: the tests want that to happen."""


class _Answer(BaseHTTPRequestHandler):
    server: Origin

    def do_GET(self) -> None:
        """Called per request."""
        self.server.asked.append(self.path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.script_of(self.path)(self)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing on the console."""


def start(request: BaseHTTPRequestHandler, status: int = 200, **headers: str) -> None:
    """Send the head of an answer."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
