"""One app per address: the routes of every connector that listens there, first match first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelserver.errors import MethodNotAllowed
from modelserver.rest.call import Call
from modelserver.rest.exchange import App
from modelserver.rest.health import ping
from modelserver.rest.management import Models
from modelserver.rest.metrics import scrape
from modelserver.rest.ports import Engine, Telemetry
from modelserver.rest.predict import prediction
from modelserver.rest.router import Route, Router, first_segment
from modelserver.settings.addresses import Address
from modelserver.settings.table import Settings

_INFERENCE, _MANAGEMENT, _METRICS = "Inference", "Management", "Metrics"


@dataclass(frozen=True, slots=True)
class Connector:
    """An address to listen on and the app behind it; the name is that of the first API it serves."""

    name: str
    address: Address
    app: App


def connectors(engine: Engine, telemetry: Telemetry, settings: Settings) -> list[Connector]:
    """Every REST connector of a server; APIs with equal addresses share one."""
    apis = [(_INFERENCE, settings.inference_address), (_MANAGEMENT, settings.management_address)]
    if settings.enable_metrics_api:
        apis.append((_METRICS, settings.metrics_address))
    shared: list[tuple[Address, list[str]]] = []
    for name, address in apis:
        for other, names in shared:
            if other == address and (address.port or address.path):  # port 0 is another port each time
                names.append(name)
                break
        else:
            shared.append((address, [name]))
    return [Connector(names[0], address, api_app(names, engine, telemetry, settings)) for address, names in shared]


def api_app(names: Sequence[str], engine: Engine, telemetry: Telemetry, settings: Settings) -> App:
    """The app of the named APIs together; inference routes win over management routes."""
    routes = [Route(lambda segments: not segments, _root)]
    if _INFERENCE in names:
        routes += _inference_routes(engine)
    if _MANAGEMENT in names:
        routes += _management_routes(engine, settings)
    combined = _INFERENCE in names and _MANAGEMENT in names
    if _METRICS in names or (combined and settings.enable_metrics_api):
        routes.append(Route(first_segment("metrics"), scrape))
    return Router(routes, telemetry)


def _inference_routes(engine: Engine) -> list[Route]:
    return [
        Route(first_segment("ping"), ping(engine)),
        Route(first_segment("predictions"), prediction(engine, explain=False)),
        Route(first_segment("explanations"), prediction(engine, explain=True)),
    ]


def _management_routes(engine: Engine, settings: Settings) -> list[Route]:
    models = Models(engine, model_api=settings.enable_model_api)
    return [
        Route(lambda segments: segments == ["models"], models.collection),
        Route(lambda segments: segments[0] == "models" and len(segments) in (2, 3), models.model),
        Route(
            lambda segments: len(segments) == 4 and segments[0] == "models" and segments[3] == "set-default",
            models.default_version,
        ),
    ]


def _root(call: Call) -> None:
    raise MethodNotAllowed
