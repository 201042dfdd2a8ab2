"""The table of routes of one port, and the ASGI app that looks requests up in it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from modelserver.errors import InternalError, ResourceNotFound, ServerError
from modelserver.rest.asgi import Receive, Scope, Send
from modelserver.rest.call import Call, ClientGone
from modelserver.rest.ports import Telemetry
from modelserver.rest.render import RequestIds
from modelserver.rest.url import split_path

Endpoint = Callable[[Call], Awaitable[None]]


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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call = Call(scope, receive, send, self._ids.next(), self._telemetry)
        try:
            await self._endpoint(call)(call)
        except ServerError as error:
            await self._fail(call, error)
        except ClientGone:
            pass
        except Exception as error:
            self._telemetry.log("ERROR", "http.HttpRequestHandler", traceback.format_exc().rstrip())
            await self._fail(call, InternalError(f"{type(error).__name__}: {error}"))

    def _endpoint(self, call: Call) -> Endpoint:
        if (error := call.exchange.error) is not None:
            raise error
        call.segments = segments = split_path(call.scope["raw_path"])
        for matches, endpoint in self._routes:
            if matches(segments):
                return endpoint
        raise ResourceNotFound

    async def _fail(self, call: Call, error: ServerError) -> None:
        if call.exchange.started:  # too late for an error body: the client must see that the response is incomplete
            call.exchange.cut()
            call.record(error.status, time.monotonic(), ok=False)
        else:
            await call.fail(error)
