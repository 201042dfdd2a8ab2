"""KServe's wrapper in front of the server: the SDK's own model server, with the documented calls of the wrapper.

With the path of the program itself in KSERVE_WRAPPER it is that one, on the ports that it insists on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from clients.client_server import BROKEN, SIZES, TOTALS, program
from clients.environments import WRAPPER
from contract.server import free_ports
from harness.archives import pack
from harness.server import DEADLINE, ServerProcess, eventually

ITSELF = os.environ.get(WRAPPER)
STAND_IN = Path(__file__).with_name("kserve_wrapper.py")
FLAGS = ("--disable-token-auth", "--enable-model-api", "--ncs")
V2_INPUT = {"name": "in0", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]}


def snapshot(*models: str) -> str:
    """As the configuration of KServe's storage says it."""
    entry = {"defaultVersion": True, "minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 50}
    versions = {name: {"1.0": {**entry, "marName": f"{name}.mar", "responseTimeout": 120}} for name in models}
    return json.dumps({"name": "startup.cfg", "modelCount": len(models), "models": versions})


class Pod:
    """The two programs of a container: the server and, beside it, the wrapper."""

    def __init__(self, directory: Path, handlers: Mapping[str, str], **environment: str) -> None:
        server, grpc_server, *own = free_ports(4)
        self._http, self._grpc = (8080, 8081) if ITSELF else own
        config = {
            "inference_address": f"http://127.0.0.1:{server}",
            "management_address": f"http://127.0.0.1:{server}",
            "grpc_inference_port": grpc_server,
            "enable_envvars_config": "true",
            "model_snapshot": snapshot(*handlers),
        }
        self.environment = environment
        self.server = ServerProcess(directory, config=config, flags=FLAGS, environment=environment, program=program())
        for name, handler in handlers.items():
            pack(self.server.store, name, handler)

    @contextmanager
    def wrapped(self, **environment: str) -> Iterator[str]:
        """The address of the wrapper, while it serves."""
        stand_in = [str(STAND_IN), str(self._http), str(self._grpc)]
        command = [sys.executable, *([f"{ITSELF}/__main__.py"] if ITSELF else stand_in)]
        config = self.server.directory / "wrapper.properties"
        store = f"model_store={self.server.store}\n"
        config.write_text((self.server.directory / "config.properties").read_text() + "\n" + store)
        paths = {"CONFIG_PATH": str(config)}
        waiting = {"MODEL_LOAD_DELAY": "1" if ITSELF else "0.1", "MODEL_LOAD_MAX_TRY": "100"}
        variables = {**os.environ, **paths, **waiting, **self.environment, **environment}
        log = self.server.directory / "wrapper.log"
        with log.open("w") as output:
            process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{self._http}"
            eventually(lambda: answers(url) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield url
        finally:
            process.terminate()
            process.wait(DEADLINE)

    @property
    def grpc_target(self) -> str:
        """Where the wrapper speaks gRPC."""
        return f"127.0.0.1:{self._grpc}"


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def post(url: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(url, json=body, headers=headers, timeout=DEADLINE)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Pod]]:
    with ExitStack() as stack:

        def start_pod(handlers: Mapping[str, str], **environment: str) -> Pod:
            pod = Pod(tmp_path_factory.mktemp("pod"), handlers, **environment)
            stack.enter_context(pod.server)
            return pod

        yield start_pod


@pytest.fixture(scope="module")
def v1_pod(start: Callable[..., Pod]) -> Pod:
    handlers = {"sizes": SIZES, "echo": SIZES, "broken": BROKEN}
    return start(handlers, TS_SERVICE_ENVELOPE="kserve", PROTOCOL_VERSION="v1")


@pytest.fixture(scope="class")  # then there is one at a time on the ports
def v1(v1_pod: Pod) -> Iterator[str]:
    with v1_pod.wrapped(MODEL_LOAD_MAX_TRY="20") as url:
        yield url


@pytest.fixture(scope="module")
def v2_pod(start: Callable[..., Pod]) -> Pod:
    return start({"totals": TOTALS, "more": TOTALS}, TS_SERVICE_ENVELOPE="kservev2")


@pytest.fixture(scope="class")
def v2(v2_pod: Pod) -> Iterator[str]:
    with v2_pod.wrapped(PROTOCOL_VERSION="v2") as url:
        yield url


class TestVersion1:
    @pytest.mark.check("kserve", 9)
    def test_every_model_of_the_snapshot_is_ready(self, v1: str) -> None:
        for name in ("sizes", "echo"):
            assert httpx.get(f"{v1}/v1/models/{name}").json()["ready"] in (True, "True")

    @pytest.mark.check("kserve", 10)
    def test_a_model_whose_workers_fail_is_not(self, v1: str) -> None:
        """The wrapper found no worker READY in all its tries."""
        assert httpx.get(f"{v1}/v1/models/broken").status_code in (404, 503)

    def test_predictions(self, v1: str) -> None:
        answer = post(f"{v1}/v1/models/sizes:predict", {"instances": ["ab", "abc"]})
        assert (answer.status_code, answer.json()) == (200, {"predictions": [2, 3]})

    def test_explanations(self, v1: str) -> None:
        answer = post(f"{v1}/v1/models/echo:explain", {"instances": ["ab"]})
        assert (answer.status_code, answer.json()) == (200, {"explanations": [2]})

    def test_errors_name_their_cause(self, v1: str) -> None:
        answer = post(f"{v1}/v1/models/sizes:predict", {"inputs": []})
        assert answer.status_code >= 400 and "request has no list 'instances'" in answer.text


class TestVersion2:
    @pytest.mark.check("kserve", 9)
    @pytest.mark.parametrize("name", ["totals", "more"])
    def test_readiness(self, v2: str, name: str) -> None:
        assert httpx.get(f"{v2}/v2/models/{name}/ready").json() == {"name": name, "ready": True}

    def test_inference(self, v2: str) -> None:
        answer = post(f"{v2}/v2/models/totals/infer", {"id": "7", "inputs": [V2_INPUT]})
        assert answer.status_code == 200, answer.text
        document = answer.json()
        (output,) = document["outputs"]
        assert (document["id"], document["model_name"]) == ("7", "totals")
        assert (output["name"], output["datatype"], output["shape"], output["data"]) == ("in0", "INT64", [1], [6])

    def test_errors_name_their_cause(self, v2: str) -> None:
        answer = post(f"{v2}/v2/models/totals/infer", {"inputs": [{**V2_INPUT, "shape": [4]}]})
        assert answer.status_code >= 400 and "data of input 'in0' do not fit its shape" in answer.text

    def test_over_grpc(self, v2_pod: Pod, v2: str) -> None:
        """The client speaks Open Inference, the wrapper version 2 in JSON."""
        assert infer(v2_pod.grpc_target) == ("7", [6])


def infer(target: str) -> tuple[str, list[int]]:
    """The id of the response, and its numbers."""
    request = messages.ModelInferRequest(model_name="totals", id="7")
    request.inputs.add(name="in0", datatype="INT64", shape=[3]).contents.int64_contents.extend([1, 2, 3])
    with grpc.insecure_channel(target) as channel:
        response = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=DEADLINE, wait_for_ready=True)
    (output,) = response.outputs
    return response.id, list(output.contents.int64_contents)


@pytest.mark.check("kserve", 9)
def test_grpc_all_the_way(v2_pod: Pod) -> None:
    """What the wrapper calls is TorchServe's `Predictions`."""
    with v2_pod.wrapped(PROTOCOL_VERSION="grpc-v2"):
        assert infer(v2_pod.grpc_target) == ("7", [6])


@pytest.mark.check("kserve", 10)
def test_readiness_with_a_description(v1_pod: Pod) -> None:
    """The handler describes itself, in spite of the envelope."""
    with v1_pod.wrapped(MODEL_LOAD_CUSTOMIZED="true", MODEL_LOAD_TIMEOUT="2", MODEL_LOAD_MAX_TRY="5") as url:
        assert httpx.get(f"{url}/v1/models/sizes").status_code == 200
