"""The format of a scrape: negotiated only where the server is told to."""

from __future__ import annotations

import pytest
from rest_doubles import MemoryEngine, Service

from modelserver.settings.table import Settings

ACCEPTED = "Accept: application/openmetrics-text;version=1.0.0;q=0.8, text/plain;q=0.5"


@pytest.mark.parametrize(
    ("enabled", "header", "kind", "body"),
    [
        (True, ACCEPTED, "application/openmetrics-text; version=1.0.0; charset=utf-8", b"# EOF\n"),
        (True, "Accept: text/plain", "text/plain; version=0.0.4; charset=utf-8", b"# metrics\n"),
        (True, "A: b", "text/plain; version=0.0.4; charset=utf-8", b"# metrics\n"),
        (False, ACCEPTED, "text/plain; version=0.0.4; charset=utf-8", b"# metrics\n"),
    ],
)
def test_formats(enabled: bool, header: str, kind: str, body: bytes) -> None:
    here = Service(MemoryEngine(), settings=Settings(enable_openmetrics=enabled), apis=("Metrics",))
    response = here.request("GET", "/metrics", b"", header)
    assert (response.headers["content-type"], response.body) == (kind, body)
