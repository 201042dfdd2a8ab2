"""One app per address: the routes of every connector that listens there, first match first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelserver.errors import MethodNotAllowed, ResourceNotFound
from modelserver.rest.authorization import Authorization
from modelserver.rest.call import Call
from modelserver.rest.exchange import App
from modelserver.rest.health import ping
from modelserver.rest.management import Models
from modelserver.rest.metrics import scrape
from modelserver.rest.ports import Engine, Telemetry
from modelserver.rest.predict import prediction
from modelserver.rest.router import Route, Router, first_segment
from modelserver.rest.tokens import INFERENCE, MANAGEMENT, Kind
from modelserver.settings.addresses import Address
from modelserver.settings.table import Settings

_INFERENCE, _MANAGEMENT, _METRICS = "Inference", "Management", "Metrics"
_KINDS: dict[str, Kind] = {_INFERENCE: INFERENCE, _MANAGEMENT: MANAGEMENT}


@dataclass(frozen=True, slots=True)
class Connector:
    """An address to listen on and the app behind it; the name is that of the first API it serves."""

    name: str
    address: Address
    app: App


def connectors(
    engine: Engine, telemetry: Telemetry, settings: Settings, authorization: Authorization | None = None
) -> list[Connector]:
    """Every REST connector of a server; APIs with equal addresses share one. Without authorization no key is asked."""
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
    return [
        Connector(names[0], address, api_app(names, engine, telemetry, settings, authorization))
        for address, names in shared
    ]


def api_app(
    names: Sequence[str],
    engine: Engine,
    telemetry: Telemetry,
    settings: Settings,
    authorization: Authorization | None = None,
) -> App:
    """The app of the named APIs together; inference routes win over management routes, each asks for its own key."""
    kinds = [_KINDS[name] for name in names if name in _KINDS]  # none where only metrics are served: open to all
    routes = [Route(lambda segments: not segments, _root)]
    if _INFERENCE in names:
        health = [Route(first_segment("ping"), ping(engine))]
        routes += health if settings.ping_without_token else _guarded(health, authorization, INFERENCE)
        routes += _guarded(_inference_routes(engine), authorization, INFERENCE)
    if _MANAGEMENT in names:
        routes += _guarded(_management_routes(engine, settings), authorization, MANAGEMENT)
        if authorization is not None:
            routes.append(Route(lambda segments: segments == ["token"], authorization.renew))
    if _METRICS in names or (len(kinds) == 2 and settings.enable_metrics_api):
        routes += _guarded([Route(first_segment("metrics"), scrape)], authorization, *kinds)
    if authorization is not None:
        routes += _guarded([Route(lambda segments: True, _nothing)], authorization, *kinds)
    return Router(routes, telemetry)


def _guarded(routes: list[Route], authorization: Authorization | None, *kinds: Kind) -> list[Route]:
    """The routes behind a check for one of these keys, or as they are where no key is asked for."""
    return routes if authorization is None or not kinds else authorization.guard(routes, *kinds)


def _inference_routes(engine: Engine) -> list[Route]:
    return [
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


def _nothing(call: Call) -> None:
    raise ResourceNotFound
