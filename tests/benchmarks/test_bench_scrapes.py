"""The benchmark of scrapes: it measures a server, and its pinger tells slow answers from quick ones."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.scrapes import Pinger


@pytest.mark.parametrize(("slow_every", "seen"), [(0, False), (100, True)])
def test_pings_that_are_held_up_show(slow_every: int, seen: bool) -> None:
    """One in a hundred is held up for a twentieth of a second."""
    asked, enough = [0], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked[0] += 1
            if asked[0] >= 1500:
                enough.set()
            if slow_every and asked[0] % slow_every == 0 and not enough.is_set():
                threading.Event().wait(0.05)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    try:
        with Pinger(f"http://127.0.0.1:{server.server_address[1]}/ping") as pinger:
            assert enough.wait(50)
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
    assert pinger.slow > 0.05 if seen else pinger.slow > 0
