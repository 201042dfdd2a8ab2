"""Both gRPC ports of a server: which methods are behind which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import grpc

from modelserver.dialect.ports import Engine, Telemetry
from modelserver.rpc.call import Call
from modelserver.rpc.conversation import Conversations
from modelserver.rpc.health import Health
from modelserver.rpc.inference import Inference
from modelserver.rpc.jobs import Jobs
from modelserver.rpc.listener import Endpoint, Limits, Listener
from modelserver.rpc.management import Management
from modelserver.rpc.messages import (
    HEALTH_SERVICE,
    INFERENCE_SERVICE,
    MANAGEMENT_SERVICE,
    OPEN_INFERENCE_SERVICE,
    TORCHSERVE_OPEN_INFERENCE_SERVICE,
)
from modelserver.rpc.open_inference import Inferences, OpenInference, Repository, Statistics
from modelserver.rpc.ports import Authorization, Kind
from modelserver.rpc.render import plain_refusal, refusal_of_prediction, refusal_of_readiness
from modelserver.rpc.sequences import Sequences
from modelserver.rpc.switchboard import Method, Switchboard
from modelserver.rpc.traced_call import TracedCall
from modelserver.settings.sequence_keys import SequenceKeys
from modelserver.settings.table import Settings
from modelserver.wire.frames import PROTOBUF, TORCHSERVE_PROTOBUF


def listeners(
    engine: Engine,
    telemetry: Telemetry,
    settings: Settings,
    authorization: Authorization | None = None,
    credentials: Any = None,
    max_connections: int | None = None,
) -> list[Listener]:
    """Both, bound; with `credentials` they speak TLS; `max_connections` is for each. Raises OSError."""
    inference = Listener(
        "gRPC inference",
        Endpoint.parse(settings.grpc_inference_address, settings.grpc_inference_port),
        switchboard("inference", inference_methods(engine, settings), engine, telemetry, settings, authorization),
        Limits(
            settings.max_request_size,
            settings.grpc_inference_max_connection_age_ms,
            settings.grpc_inference_max_connection_age_grace_ms,
            max_connections,
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
            max_connections,
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
        methods[f"{HEALTH_SERVICE}/Watch"] = Method(health.watch, streams=True, open=opened, endless=True)
        services.add(HEALTH_SERVICE)
    if settings.enable_grpc_reflection:
        # Its library takes a while to import, and few ask for it.
        from modelserver.rpc.reflection import REFLECTION_SERVICE, Reflection

        reflection = Reflection({*services, REFLECTION_SERVICE})
        methods[f"{REFLECTION_SERVICE}/ServerReflectionInfo"] = Method(reflection.inform, streams=True)
    calls = TracedCall if settings.opentelemetry_traces else Call
    return Switchboard(methods, telemetry, authorization, kind, settings.max_request_size, calls)


def inference_methods(engine: Engine, settings: Settings) -> dict[str, Method]:
    """By `package.Service/Method`."""
    jobs = Jobs(engine, settings.max_response_size)
    keys = SequenceKeys.of(settings)
    inference = Inference(engine, jobs, keys)
    conversations = Conversations(jobs, Sequences(jobs, keys))
    methods = {
        "Ping": Method(inference.ping, open=settings.ping_without_token),
        "Predictions": Method(inference.predict),
        "StreamPredictions": Method(inference.stream, streams=True),
        "StreamPredictions2": Method(conversations.converse, streams=True),
    }
    served = {
        f"{INFERENCE_SERVICE}/{name}": replace(method, refuse=refusal_of_prediction) for name, method in methods.items()
    }
    return served | _open_inference_methods(engine, jobs, settings) if settings.ts_open_inference_protocol else served


def _open_inference_methods(engine: Engine, jobs: Jobs, settings: Settings) -> dict[str, Method]:
    """Open Inference under both names; the standard one has extensions, and errors of its own."""
    ours = _core_methods(OpenInference(engine, jobs, TORCHSERVE_PROTOBUF))
    methods = {
        f"{TORCHSERVE_OPEN_INFERENCE_SERVICE}/{name}": replace(
            method, refuse=refusal_of_prediction if name == "ModelInfer" else refusal_of_readiness
        )
        for name, method in ours.items()
    }
    standard = OpenInference(engine, jobs, PROTOBUF)
    workers = max(1, settings.default_workers_per_model)
    repository = Repository(engine, model_api=settings.enable_model_api, workers=workers)
    theirs = _core_methods(standard) | {
        "ModelStreamInfer": Method(Conversations(jobs, Inferences(standard)).converse, streams=True),
        "RepositoryIndex": Method(repository.index),
        "RepositoryModelLoad": Method(repository.load),
        "RepositoryModelUnload": Method(repository.unload),
        "ModelStatistics": Method(Statistics(engine).tell),
    }
    for name, method in theirs.items():
        methods[f"{OPEN_INFERENCE_SERVICE}/{name}"] = replace(method, refuse=plain_refusal)
    return {target: replace(method, owner="OpenInferenceProtocolImpl") for target, method in methods.items()}


def _core_methods(service: OpenInference) -> dict[str, Method]:
    return {
        "ServerLive": Method(service.server_live),
        "ServerReady": Method(service.server_ready),
        "ServerMetadata": Method(service.server_metadata),
        "ModelReady": Method(service.model_ready),
        "ModelMetadata": Method(service.model_metadata),
        "ModelInfer": Method(service.infer),
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
