"""`/ping`."""

from __future__ import annotations

from modelserver.rest.call import Call
from modelserver.rest.ports import Engine
from modelserver.rest.render import JSON_TYPE, json_text
from modelserver.rest.router import Endpoint

_HEALTHY = json_text({"status": "Healthy"})
_UNHEALTHY = json_text({"status": "Unhealthy"})


def ping(engine: Engine) -> Endpoint:
    """Whether every model's default version has its minimum of workers; any method, any deeper path."""

    def answer(call: Call) -> None:
        if engine.healthy():
            call.respond(200, _HEALTHY, [JSON_TYPE])
        else:
            call.respond(500, _UNHEALTHY, [JSON_TYPE])

    return answer
