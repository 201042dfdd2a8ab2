"""The table of routes of one port, and the app that looks requests up in it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from modelserver.errors import InternalError, ResourceNotFound, ServerError
from modelserver.rest.call import Call
from modelserver.rest.exchange import Exchange
from modelserver.rest.ports import Telemetry
from modelserver.rest.render import RequestIds
from modelserver.rest.url import split_path

# Answers at once, arranges for an answer later (both: None), or returns the work that will answer.
Endpoint = Callable[[Call], Coroutine[Any, Any, None] | None]


class Route(NamedTuple):
    """An endpoint and the paths it serves; methods are the endpoint's own business."""

    matches: Callable[[list[str]], bool]  # gets the segments of the decoded path
    endpoint: Endpoint


def first_segment(name: str) -> Callable[[list[str]], bool]:
    """Matches every path that begins with this segment."""
    return lambda segments: bool(segments) and segments[0] == name


class Router:
    """The app of one port: the first route that matches answers, errors are rendered here and nowhere else."""

    def __init__(self, routes: Sequence[Route], telemetry: Telemetry) -> None:
        self._routes = tuple(routes)
        self._telemetry = telemetry
        self._ids = RequestIds()

    def __call__(self, exchange: Exchange) -> None:
        """Answer one request, now or later."""
        call = Call(exchange, self._ids.next(), self._telemetry)
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
        for matches, endpoint in self._routes:
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
