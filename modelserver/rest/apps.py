"""One app per address: the routes of every connector that listens there, first match first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelserver.dialect.ports import Engine
from modelserver.errors import ResourceNotFound
from modelserver.rest.authorization import Authorization
from modelserver.rest.call import Call
from modelserver.rest.call_class import call_class
from modelserver.rest.description import description, root
from modelserver.rest.exchange import App
from modelserver.rest.health import ping
from modelserver.rest.invoke import (
    invocation,
    invocations,
    kserve_v1,
    legacy_prediction,
    model_names,
    readiness,
)
from modelserver.rest.management import Models
from modelserver.rest.metrics import scraping
from modelserver.rest.open_inference import inference_routes, protocol_routes
from modelserver.rest.openapi import describe_port
from modelserver.rest.ports import Telemetry
from modelserver.rest.predict import prediction
from modelserver.rest.router import Route, Router, route
from modelserver.rest.tokens import INFERENCE, MANAGEMENT, Kind
from modelserver.settings.addresses import Address
from modelserver.settings.table import Settings
from modelserver.settings.version import version

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
    """The app of the named APIs together; each route asks for the key of its own API."""
    kinds = [_KINDS[name] for name in names if name in _KINDS]  # none where only metrics are served: open to all
    inference, management = _INFERENCE in names, _MANAGEMENT in names
    routes = _open_routes(names, settings)
    if inference:
        health = [route("/ping/...", ping(engine))]
        routes += health if settings.ping_without_token else _guarded(health, authorization, INFERENCE)
        routes += _guarded(_inference_routes(engine), authorization, INFERENCE)
        if settings.ts_open_inference_protocol:
            routes += _guarded(protocol_routes(engine, settings), authorization, INFERENCE)
    if management:
        routes += _guarded(_management_routes(engine, settings), authorization, MANAGEMENT)
        if authorization is not None:
            routes.append(route("/token", authorization.renew))
    if _METRICS in names or (inference and management and settings.enable_metrics_api):
        scrape = scraping(openmetrics=settings.enable_openmetrics)
        routes += _guarded([route("/metrics/...", scrape)], authorization, *kinds)
    if inference:
        # Before the old ones, to which `models` would be the name of a model.
        routes += _guarded([route("/models/...", _nothing)], authorization, *kinds)
        routes += _guarded(_legacy_routes(engine), authorization, INFERENCE)
    routes += _guarded([route("/...", _nothing)], authorization, *kinds)
    return Router(routes, telemetry, call_class(settings))


def _guarded(routes: list[Route], authorization: Authorization | None, *kinds: Kind) -> list[Route]:
    """The routes behind a check for one of these keys, or as they are where no key is asked for."""
    return routes if authorization is None or not kinds else authorization.guard(routes, *kinds)


def _open_routes(names: Sequence[str], settings: Settings) -> list[Route]:
    """What no key is needed for."""
    document = describe_port(names, version(), open_inference=settings.ts_open_inference_protocol)
    return [route("/", root(document, settings)), route("/api-description", description(document))]


def _inference_routes(engine: Engine) -> list[Route]:
    return [
        route("/predictions/...", prediction(engine, explain=False)),
        route("/explanations/...", prediction(engine, explain=True)),
        route("/invocations/...", invocations(engine)),
        route("/models/{model}/invoke", invocation(engine)),
        route("/v1/models/{model}", kserve_v1(engine)),
        route("/v1/models", model_names(engine)),
        *inference_routes(engine),
    ]


def _legacy_routes(engine: Engine) -> list[Route]:
    """They take any first segment that is not the name of another route."""
    predict = legacy_prediction(engine)
    return [route("/{model}/predict", predict), route("/{model}/{version}/predict", predict)]


def _management_routes(engine: Engine, settings: Settings) -> list[Route]:
    models = Models(engine, model_api=settings.enable_model_api)
    return [
        route("/models", models.collection),
        route("/models/{model}", models.model),
        route("/models/{model}/{version}", models.model),
        route("/models/{model}/{version}/set-default", models.default_version),
        route("/v1/models/{model}", readiness(engine)),
        route("/v1/models", model_names(engine)),
    ]


def _nothing(call: Call) -> None:
    raise ResourceNotFound
