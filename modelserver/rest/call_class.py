"""The class of all calls of a server: each thing that a configuration wants of responses is a class of its own."""

from __future__ import annotations

from modelserver.rest.call import Call
from modelserver.rest.cors import CrossOriginCall, cors_headers
from modelserver.rest.receipt import TimedCall, TracedCall
from modelserver.settings.table import Settings


def call_class(settings: Settings) -> type[Call]:
    """The plain class, which costs nothing, where nothing is wanted."""
    allowed = cors_headers(settings)
    wanted: list[type[Call]] = [CrossOriginCall] if allowed else []
    if settings.server_timing:
        wanted.append(TimedCall)
    if settings.opentelemetry_traces:
        wanted.append(TracedCall)
    if not wanted:
        return Call
    return type("ConfiguredCall", (*wanted,), {"allowed": allowed, "__slots__": ()})
