"""The format of a scrape: negotiated only where the server is told to."""

from __future__ import annotations

import pytest
from rest_doubles import MemoryEngine, Service

from modelserver.rest.negotiation import prefers_openmetrics
from modelserver.settings.table import Settings

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
ACCEPTED = "Accept: application/openmetrics-text;version=1.0.0;q=0.8, text/plain;q=0.5"


@pytest.mark.parametrize(
    ("enabled", "header", "kind", "body"),
    [
        (True, ACCEPTED, OPENMETRICS, b"# EOF\n"),
        (True, "Accept: text/plain\r\nAccept: application/openmetrics-text", OPENMETRICS, b"# EOF\n"),
        (True, "Accept: text/plain", "text/plain; version=0.0.4; charset=utf-8", b"# metrics\n"),
        (True, "A: b", "text/plain; version=0.0.4; charset=utf-8", b"# metrics\n"),
        (False, ACCEPTED, "text/plain; version=0.0.4; charset=utf-8", b"# metrics\n"),
    ],
)
def test_formats(enabled: bool, header: str, kind: str, body: bytes) -> None:
    here = Service(MemoryEngine(), settings=Settings(enable_openmetrics=enabled), apis=("Metrics",))
    response = here.request("GET", "/metrics", b"", header)
    assert (response.headers["content-type"], response.body) == (kind, body)


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        (b"", False),
        (b"*/*", False),
        (b"application/*", False),
        (b"application/openmetrics-text", True),
        (b"Application/OpenMetrics-Text; Version=1.0.0", True),
        (b"application/openmetrics-text;q=0", False),
        (b"application/openmetrics-text;q=0.000, text/plain;q=0", False),
        (b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.5", True),
        (b"application/openmetrics-text;q=0.4,text/plain;q=0.5", False),
        (b"application/openmetrics-text;q=0.4,text/plain;q=0.3,text/*;q=0.9,*/*;q=1", True),
        (b"application/openmetrics-text;q=0.4,*/*;q=0.9", False),
        (b"application/openmetrics-text;version=0.0.1;q=0.1,application/openmetrics-text;q=0.6,text/plain;q=0.5", True),
        (b"application/openmetrics-text; Q = 0.2 ; x=y, text/plain;q=0.1", True),
        (b"application/openmetrics-text;q=nan,text/plain;q=inf", True),
        (b"application/openmetrics-text;q=,text/plain", True),
        (b"application/openmetrics-textual,text/plain;q=0", False),
        (b",;,q=1,;;=", False),
    ],
)
def test_weights(accept: bytes, preferred: bool) -> None:
    assert prefers_openmetrics(accept) == preferred
