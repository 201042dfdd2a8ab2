"""`/ping`."""

from __future__ import annotations

from typing import Any

from modelserver.dialect.ports import Engine
from modelserver.engine.requests import Ailment
from modelserver.rest.call import Call
from modelserver.rest.render import JSON_TYPE, json_text
from modelserver.rest.router import Endpoint

_HEALTHY = json_text({"status": "Healthy"})


def ping(engine: Engine) -> Endpoint:
    """Whether every model's default version has its minimum of workers; any method, any deeper path."""

    def answer(call: Call) -> None:
        if engine.healthy():
            call.respond(200, _HEALTHY, [JSON_TYPE])
        else:
            causes = [_cause(ailment) for ailment in engine.ailments()]
            call.respond(500, json_text({"status": "Unhealthy", "causes": causes or None}), [JSON_TYPE])

    return answer


def _cause(ailment: Ailment) -> dict[str, Any]:
    """One line of reason is enough here: describe has the traces."""
    return {
        "model": ailment.model,
        "version": ailment.version,
        "worker": ailment.worker,
        "reason": str(ailment.certificate.cause),
        "detail": ailment.certificate.detail,
    }
