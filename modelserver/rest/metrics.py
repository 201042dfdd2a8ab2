"""`/metrics`."""

from __future__ import annotations

from modelserver.rest.call import Call
from modelserver.rest.url import parse_query

_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


async def scrape(call: Call) -> None:
    """The exposition text, filtered by `name[]`; any method, any deeper path."""
    names = [value for name, value in parse_query(call.query) if name == "name[]"]
    call.respond(200, await call.telemetry.scrape(names), [_TEXT])
