"""The table of routes of one port, and the app that looks requests up in it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from modelserver.dialect.request_ids import RequestIds
from modelserver.errors import InternalError, ResourceNotFound, ServerError
from modelserver.rest.call import Call
from modelserver.rest.exchange import Exchange
from modelserver.rest.ports import Telemetry
from modelserver.rest.url import split_path

# Answers at once, arranges for an answer later (both: None), or returns the work that will answer.
Endpoint = Callable[[Call], Coroutine[Any, Any, None] | None]


class Route(NamedTuple):
    """An endpoint and the paths it serves; methods are the endpoint's own business."""

    first: str | None  # first segment of these paths, "" for the root; None: any
    matches: Callable[[list[str]], bool]  # gets the segments of a decoded path whose first segment is right
    endpoint: Endpoint


def route(pattern: str, endpoint: Endpoint) -> Route:
    """`{name}` in a pattern is any one segment, `...` at its end any number of them, also none."""
    segments = split_path(pattern.encode("ascii"))
    open_end = segments[-1:] == ["..."]
    segments = segments[:-1] if open_end else segments
    fixed = [(at, segment) for at, segment in enumerate(segments) if at and not segment.startswith("{")]
    return Route(_first(segments, open_end), _matcher(len(segments), fixed, open_end), endpoint)


def _first(segments: list[str], open_end: bool) -> str | None:
    if not segments:
        return None if open_end else ""
    return None if segments[0].startswith("{") else segments[0]


def _matcher(size: int, fixed: list[tuple[int, str]], open_end: bool) -> Callable[[list[str]], bool]:
    if open_end and not fixed:
        return lambda segments: True

    def matches(segments: list[str]) -> bool:
        fits = len(segments) == size or (open_end and len(segments) > size)
        return fits and all(segments[at] == segment for at, segment in fixed)

    return matches


class Router:
    """The app of one port: the first route that matches answers, errors are rendered here and nowhere else."""

    def __init__(self, routes: Sequence[Route], telemetry: Telemetry, calls: type[Call] = Call) -> None:
        names = {route.first for route in routes if route.first is not None}
        self._named = {name: [route for route in routes if route.first in (name, None)] for name in names}
        self._unnamed = [route for route in routes if route.first is None]  # of every other first segment
        self._telemetry = telemetry
        self._calls = calls
        self._ids = RequestIds()

    def __call__(self, exchange: Exchange) -> None:
        """Answer one request, now or later."""
        call = self._calls(exchange, self._ids.next(), self._telemetry)
        try:
            work = self._endpoint(call)(call)
        except Exception as error:
            fail(call, error)
        else:
            if work is not None:
                exchange.spawn(self._work(call, work))

    async def _work(self, call: Call, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            fail(call, error)
        finally:
            if not call.exchange.finished:  # cancelled: the server does not wait any longer
                call.exchange.cut()

    def _endpoint(self, call: Call) -> Endpoint:
        if (error := call.exchange.error) is not None:
            raise error
        call.segments = segments = split_path(call.split_target())
        for _, matches, endpoint in self._named.get(segments[0] if segments else "", self._unnamed):
            if matches(segments):
                return endpoint
        raise ResourceNotFound


def fail(call: Call, error: Exception) -> None:
    """Render an error; one that nobody foresaw is logged with its traceback."""
    if not isinstance(error, ServerError):
        text = "".join(traceback.format_exception(error)).rstrip()
        call.telemetry.log("ERROR", "http.HttpRequestHandler", text)
        error = InternalError(f"{type(error).__name__}: {error}")
    call.fail(error)
