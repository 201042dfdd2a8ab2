"""`/metrics`."""

from __future__ import annotations

from modelserver.rest.call import Call
from modelserver.rest.negotiation import prefers_openmetrics
from modelserver.rest.router import Endpoint
from modelserver.rest.url import parse_query

_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_OPENMETRICS = (b"content-type", b"application/openmetrics-text; version=1.0.0; charset=utf-8")


def scraping(*, openmetrics: bool) -> Endpoint:
    """The exposition text, filtered by `name[]`; any method, any deeper path. With `openmetrics`, scrapers that like
    that format no less get it.
    """

    async def scrape(call: Call) -> None:
        names = [value for name, value in parse_query(call.query) if name == "name[]"]
        accepted = openmetrics and prefers_openmetrics(
            b",".join(value for name, value in call.exchange.headers if name == b"accept")
        )
        text = await call.telemetry.scrape(names, openmetrics=accepted)
        call.respond(200, text, [_OPENMETRICS if accepted else _TEXT])

    return scrape
