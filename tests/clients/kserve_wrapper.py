"""A stand-in for the program that KServe runs beside TorchServe: that one is no package, it comes in an image alone.

Everything that is served and forwarded is the SDK's own. What is written here is what the documentation says of it:
which keys it reads, how it waits for models, and how it speaks gRPC.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from kserve import InferRequest, InferResponse, Model, ModelServer
from kserve.predictor_config import PredictorConfig

PROTOS = Path(__file__).parents[2] / "protos"


@dataclass(frozen=True)
class Configuration:
    """What it knows of the model server, from that one's own file and from the environment."""

    inference: str
    management: str
    grpc_port: str
    models: tuple[str, ...]
    protocol: str
    customized: str
    tries: int
    delay: float  # seconds after each try
    timeout: float  # seconds

    @classmethod
    def read(cls) -> Configuration:
        """From the file that CONFIG_PATH names."""
        lines = Path(os.environ.get("CONFIG_PATH", "/mnt/models/config/config.properties")).read_text().splitlines()
        keys = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        snapshot = json.loads(keys.get("model_snapshot", "{}"))
        return cls(
            inference=keys.get("inference_address", "http://127.0.0.1:8085"),
            management=keys.get("management_address", "http://127.0.0.1:8085"),
            grpc_port=keys.get("grpc_inference_port", "7070"),
            models=tuple(snapshot.get("models", ["model"])),
            protocol=os.environ.get("PROTOCOL_VERSION", "v1"),
            customized=os.environ.get("MODEL_LOAD_CUSTOMIZED", "false"),
            tries=int(os.environ.get("MODEL_LOAD_MAX_TRY", "10")),
            delay=float(os.environ.get("MODEL_LOAD_DELAY", "30")),
            timeout=float(os.environ.get("MODEL_LOAD_TIMEOUT", "5")),
        )

    @property
    def predictor(self) -> str:
        """Host and port for predictions."""
        return httpx.URL(self.inference).netloc.decode()


class Forwarded(Model):  # type: ignore[misc]
    """A model of the server behind it."""

    def __init__(self, name: str, configuration: Configuration) -> None:
        super().__init__(name)
        self._configuration = configuration

    def load(self) -> bool:
        """Ask until a worker is ready; an answer that is none ends the attempts for good."""
        for _ in range(self._configuration.tries):
            try:
                self.ready = self._is_ready()
            except httpx.TransportError:
                pass
            except Exception:
                break
            time.sleep(self._configuration.delay)
            if self.ready:
                break
        return bool(self.ready)

    def start(self) -> None:
        """Nothing: the SDK would call every model ready."""

    def _is_ready(self) -> bool:
        url = f"{self._configuration.management}/models/{self.name}"
        customized = self._configuration.customized
        answer = httpx.get(url, params={"customized": customized}, timeout=self._configuration.timeout).json()
        described = answer[0]
        loaded = any(worker["status"] == "READY" for worker in described["workers"])
        return loaded and (customized == "false" or "customizedMetadata" in described)

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """REST as the SDK does it; for gRPC TorchServe's own call, with a request of version 2 in JSON."""
        if self._configuration.protocol != "grpc-v2":
            return await super().predict(payload, headers, response_headers)
        document = json.dumps(_as_json(payload)).encode()
        return InferResponse.from_rest(json.loads(await self._predictions(document)))

    async def explain(self, payload: Any, headers: Any = None) -> Any:
        """JSON without a content type."""
        url = f"{self._configuration.inference}/v1/models/{self.name}:explain"
        async with httpx.AsyncClient() as client:
            answer = await client.post(url, content=json.dumps(payload).encode())
        return answer.raise_for_status().json()

    async def _predictions(self, document: bytes) -> bytes:
        sys.path.insert(0, str(PROTOS))
        messages, services = grpc.protos_and_services("inference.proto")
        host = httpx.URL(self._configuration.inference).host
        async with grpc.aio.insecure_channel(f"{host}:{self._configuration.grpc_port}") as channel:
            stub = services.InferenceAPIsServiceStub(channel)
            request = messages.PredictionsRequest(model_name=self.name, input={"data": document})
            answer: bytes = (await stub.Predictions(request)).prediction
        return answer


def _as_json(request: InferRequest) -> dict[str, Any]:
    inputs = [
        {"name": each.name, "shape": list(each.shape), "datatype": each.datatype, "data": each.as_numpy().tolist()}
        for each in request.inputs
    ]
    return {"id": request.id or str(uuid.uuid4()), "inputs": inputs}


def main() -> None:
    """Serve on the ports given, once all models have been waited for."""
    http_port, grpc_port = map(int, sys.argv[1:])
    configuration = Configuration.read()
    config = PredictorConfig(configuration.predictor, predictor_protocol=configuration.protocol)
    server = ModelServer(http_port=http_port, grpc_port=grpc_port, predictor_config=config)
    models = [Forwarded(name, configuration) for name in configuration.models]
    for model in models:
        model.load()
        server.register_model(model)
    server.start(models)


if __name__ == "__main__":
    main()
