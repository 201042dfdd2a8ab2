"""Both gRPC ports of a server: which methods are behind which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import grpc

from modelserver.rpc.conversation import Conversations, SequenceKeys
from modelserver.rpc.health import Health
from modelserver.rpc.inference import Inference
from modelserver.rpc.listener import Endpoint, Limits, Listener
from modelserver.rpc.management import Management
from modelserver.rpc.messages import HEALTH_SERVICE, INFERENCE_SERVICE, MANAGEMENT_SERVICE
from modelserver.rpc.ports import Authorization, Engine, Kind, Telemetry
from modelserver.rpc.render import refusal_of_prediction
from modelserver.rpc.switchboard import Method, Switchboard
from modelserver.settings.table import Settings


def listeners(
    engine: Engine,
    telemetry: Telemetry,
    settings: Settings,
    authorization: Authorization | None = None,
    credentials: Any = None,
) -> list[Listener]:
    """Both, bound; with `credentials` they speak TLS. Raises OSError."""
    inference = Listener(
        "gRPC inference",
        Endpoint.parse(settings.grpc_inference_address, settings.grpc_inference_port),
        switchboard("inference", inference_methods(engine, settings), engine, telemetry, settings, authorization),
        Limits(
            settings.max_request_size,
            settings.grpc_inference_max_connection_age_ms,
            settings.grpc_inference_max_connection_age_grace_ms,
        ),
        credentials,
    )
    management = Listener(
        "gRPC management",
        Endpoint.parse(settings.grpc_management_address, settings.grpc_management_port),
        switchboard("management", management_methods(engine, settings), engine, telemetry, settings, authorization),
        Limits(
            settings.max_request_size,
            settings.grpc_management_max_connection_age_ms,
            settings.grpc_management_max_connection_age_grace_ms,
        ),
        credentials,
    )
    return [inference, management]


def server_credentials(key: bytes, chain: bytes, authorities: bytes) -> Any:
    """TLS with this identity (PEM); with authorities, clients have to show a certificate of one of them."""
    return grpc.ssl_server_credentials([(key, chain)], authorities or None, require_client_auth=bool(authorities))


def switchboard(
    kind: Kind,
    methods: Mapping[str, Method],
    engine: Engine,
    telemetry: Telemetry,
    settings: Settings,
    authorization: Authorization | None = None,
) -> Switchboard:
    """The methods of a port, and those that tell about them where these are switched on."""
    methods = dict(methods)
    services = {target.partition("/")[0] for target in methods}
    if settings.enable_grpc_health:
        health = Health(engine, services)
        opened = settings.ping_without_token
        methods[f"{HEALTH_SERVICE}/Check"] = Method(health.check, open=opened)
        methods[f"{HEALTH_SERVICE}/Watch"] = Method(health.watch, streams=True, open=opened)
        services.add(HEALTH_SERVICE)
    if settings.enable_grpc_reflection:
        # Its library takes a while to import, and few ask for it.
        from modelserver.rpc.reflection import REFLECTION_SERVICE, Reflection

        reflection = Reflection({*services, REFLECTION_SERVICE})
        methods[f"{REFLECTION_SERVICE}/ServerReflectionInfo"] = Method(reflection.inform, streams=True)
    return Switchboard(methods, telemetry, authorization, kind)


def inference_methods(engine: Engine, settings: Settings) -> dict[str, Method]:
    """By `package.Service/Method`."""
    inference = Inference(engine, settings.max_response_size)
    conversations = Conversations(inference, SequenceKeys.of(settings))
    methods = {
        "Ping": Method(inference.ping, open=settings.ping_without_token),
        "Predictions": Method(inference.predict),
        "StreamPredictions": Method(inference.stream, streams=True),
        "StreamPredictions2": Method(conversations.converse, streams=True),
    }
    return {
        f"{INFERENCE_SERVICE}/{name}": replace(method, refuse=refusal_of_prediction) for name, method in methods.items()
    }


def management_methods(engine: Engine, settings: Settings) -> dict[str, Method]:
    """By `package.Service/Method`."""
    management = Management(engine, model_api=settings.enable_model_api)
    works = {
        "DescribeModel": management.describe,
        "ListModels": management.list_models,
        "RegisterModel": management.register,
        "ScaleWorker": management.scale,
        "SetDefault": management.set_default,
        "UnregisterModel": management.unregister,
    }
    return {f"{MANAGEMENT_SERVICE}/{name}": Method(work, owner="ManagementImpl") for name, work in works.items()}
