"""Deployments as users have them start unchanged: a container's script, a directory of KServe, SageMaker's toolkit."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from contract.server import free_ports
from harness.archives import NOOP, pack
from harness.server import MODELSERVER, BackgroundServer, ended, eventually

FIXTURES = Path(__file__).parent / "deployments"
MARKER = "org.pytorch.serve.ModelServer"


class Deployment(BackgroundServer):
    """A command that starts the server in the background and may outlive it; its directory stands for the root."""

    def __init__(self, root: Path, command: list[str], environment: Mapping[str, str]) -> None:
        path = f"{MODELSERVER.parent}{os.pathsep}{os.environ['PATH']}"
        super().__init__(root, environment={"PATH": path, **environment})
        (root / "config.properties").unlink()
        self.command = command

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the server, then the command, as a container is ended."""
        assert self.server is not None and self.process is not None
        tree = self.tree()
        self.server.send_signal(number)
        eventually(lambda: all(map(ended, tree)))
        self.process.terminate()
        return self.wait()


def free_port(number: re.Match[str]) -> str:
    """A port for the kernel to choose, in the place of a fixed one."""
    return ":0" if number[0].startswith(":") else "0"


def install(root: Path, fixture: str, target: str, **changes: str) -> Path:
    """Copy a file of a deployment to its place below the root, on ports that the kernel chooses."""
    text = re.sub(r":808[0-2]\b|(?<==)707[01]\b", free_port, (FIXTURES / fixture).read_text())
    for old, new in {"/home/model-server": f"{root}/home/model-server", "/mnt": f"{root}/mnt", **changes}.items():
        text = text.replace(old, new)
    path = root / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """The home of a derived image: more lines were appended to its configuration, and a model was added."""
    home = tmp_path / "home" / "model-server"
    configuration = install(tmp_path, "container/config.properties", "home/model-server/config.properties")
    with configuration.open("a") as file:
        file.write("\njob_queue_size=7\nenable_envvars_config=true\nload_models=$$MODEL$$\n")
        file.write("grpc_inference_port=0\ngrpc_management_port=0")
    install(tmp_path, "container/entrypoint.sh", "entrypoint.sh")
    (home / "model-store").mkdir()
    pack(home / "model-store", "digit", NOOP)
    return home


@pytest.mark.parametrize(
    "arguments",
    [["serve"], ["torchserve", "--start --disable-token-auth", "--ts-config=$HOME/config.properties --ncs"]],
    ids=["serve", "command"],
)
def test_a_container(tmp_path: Path, container: Path, arguments: list[str]) -> None:
    """The start script with the environment of `docker run`; the last of equal keys counts, variables beat the file."""
    environment = {
        "HOME": str(container),
        "PYTHONUNBUFFERED": "TRUE",
        "MODEL": "digit.mar",
        "TS_DEFAULT_WORKERS_PER_MODEL": "1",
        "TS_ENABLE_MODEL_API": "true",
        "LOG_LOCATION": str(tmp_path / "var" / "log"),
    }
    command = ["bash", str(tmp_path / "entrypoint.sh"), *arguments]
    with Deployment(tmp_path, command, environment) as server:
        assert server.url().startswith("http://0.0.0.0:")
        assert server.request("GET", "/ping").json() == {"status": "Healthy"}
        assert server.predict("digit").text == "ok"
        description = server.describe("digit")
        assert (description["minWorkers"], description["loadedAtStartup"]) == (1, True)
        assert description["jobQueueStatus"]["remainingCapacity"] == 7
        assert server.register("digit.mar", model_name="again", workers=0).status_code == 200
        assert server.process is not None and server.process.poll() is None, "the container stays up"
        assert f"Workflow Store: {container}/wf-store" in server.output
    assert (tmp_path / "var" / "log" / "ts_log.log").exists()
    assert server.process.poll() == -signal.SIGTERM


def test_a_directory_of_kserve(tmp_path: Path) -> None:
    """One address for two APIs, and the models that the configuration has saved; the wrapper beside asks for them."""
    (port,) = free_ports(1)
    install(tmp_path, "kserve/config.properties", "mnt/models/config/config.properties", **{":8085": f":{port}"})
    models = tmp_path / "mnt" / "models"
    (models / "model-store").mkdir()
    pack(models / "model-store", "digit", NOOP)
    command = [
        "torchserve",
        "--start",
        f"--model-store={models}/model-store",
        f"--ts-config={models}/config/config.properties",
        "--disable-token-auth",
        "--enable-model-api",
    ]
    environment = {"PROTOCOL_VERSION": "v1", "TS_JOB_QUEUE_SIZE": "11", "TS_SERVICE_ENVELOPE": "kserve"}
    with Deployment(tmp_path, command, environment) as server:
        assert "Management API bind to" not in server.output
        answer = server.request("GET", "/models/digit?customized=false")
        assert answer.status_code == 200, "models are registered before anything listens"
        (description,) = answer.json()
        assert (description["minWorkers"], description["maxWorkers"], description["maxBatchDelay"]) == (1, 5, 50)
        assert description["jobQueueStatus"]["remainingCapacity"] == 11
        assert description["loadedAtStartup"] is False
        asked = server.request("POST", "/v1/models/digit:predict", json={"instances": [{"data": "aGk="}]})
        assert (asked.status_code, asked.json()) == (200, {"predictions": ["ok"]})
        scrape = server.request("GET", "/metrics", "Metrics").text
        assert "ts_inference_requests_total" in scrape
        log = server.log("ts_log.log")
        assert "Unknown key metrics_format has no effect" in log and "Unknown key NUM_WORKERS has no effect" in log


BASE = """vmargs=-XX:-UseContainerSupport
enable_envvars_config=true
decode_input_request=false
load_models=ALL
disable_token_authorization=true
enable_model_api=true"""
MODELS = """
models={\\
        "model": {\\
            "1.0": {\\
                "defaultVersion": true,\\
                "marName": "model.mar",\\
                "minWorkers": 1,\\
                "maxWorkers": 1,\\
                "batchSize": 4,\\
                "maxBatchDelay": 70,\\
                "responseTimeout": 50\\
                }\\
            }\\
        }
"""
CONSOLE_ONLY = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
    <Appenders>
        <Console name="STDOUT" target="SYSTEM_OUT">
            <PatternLayout pattern="%d{ISO8601} [%-5p] %t %c - %m%n"/>
        </Console>
    </Appenders>
    <Loggers>
        <Root level="info"><AppenderRef ref="STDOUT"/></Root>
        <Logger name="org.pytorch.serve" level="debug"/>
    </Loggers>
</Configuration>
"""
TOOLKIT = """
import os


def handle(data, context):
    return data and [f"{os.environ['TS_DECODE_INPUT_REQUEST']} {type(row['body']).__name__}" for row in data]
"""


@pytest.mark.parametrize("glue", ["", "\n"], ids=["glued", "separate"])
def test_the_toolkit_of_sagemaker(tmp_path: Path, glue: str) -> None:
    """A file put together by a program, its first part without a last line feed; a log on the console; no archive."""
    (port,) = free_ports(1)
    appended = {
        "default_response_timeout": "60",
        "inference_address": f"http://0.0.0.0:{port}",
        "management_address": f"http://0.0.0.0:{port}",
        "metrics_address": "http://127.0.0.1:0",
        "grpc_inference_port": "0",
        "grpc_management_port": "0",
        "default_service_handler": "serving_toolkit.handler_service:handle",
    }
    text = BASE + glue + "\n".join(f"{key}={value}" for key, value in appended.items()) + MODELS
    (tmp_path / "sagemaker-ts.properties").write_text(text)
    (tmp_path / "site" / "serving_toolkit").mkdir(parents=True)
    (tmp_path / "site" / "serving_toolkit" / "handler_service.py").write_text(TOOLKIT)
    (tmp_path / "opt" / "ml" / "model").mkdir(parents=True)
    (tmp_path / "opt" / "ml" / "model" / "model.pth").write_bytes(b"weights")
    store = tmp_path / ".sagemaker" / "ts" / "models"
    store.mkdir(parents=True)
    command = ["torchserve", "--start", "--model-store", str(store), "--ts-config"]
    (tmp_path / "log4j2.xml").write_text(CONSOLE_ONLY)
    command += [str(tmp_path / "sagemaker-ts.properties"), "--log-config", str(tmp_path / "log4j2.xml")]
    command += ["--models", f"model={tmp_path}/opt/ml/model"]
    with Deployment(tmp_path, command, {"PYTHONPATH": str(tmp_path / "site")}) as server:
        assert "Warning: TorchServe is using non-default JVM parameters: -XX:-UseContainerSupport" in server.output
        found = [process for process in psutil.process_iter() if is_server(process, tmp_path)]
        assert found == [server.server]
        answer = server.request(
            "POST", "/invocations", content=b'{"a": 1}', headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.text) == (200, "false bytearray")
        answer = server.request("GET", "/models/model")
        assert answer.status_code == 200, answer.text
        (description,) = answer.json()
        assert (description["batchSize"], description["maxBatchDelay"]) == (4, 70)
        assert (description["maxWorkers"], description["responseTimeout"]) == (1, 50)
        registered = server.request(
            "POST", "/models", params={"url": str(tmp_path / "opt/ml/model"), "model_name": "b"}
        )
        assert registered.status_code == (200 if glue else 405)
        doubt = '"truedefault_response_timeout=60" is neither true nor false: taken as false (enable_model_api'
        assert (doubt in server.output) is not bool(glue)
    assert not list((tmp_path / "logs").glob("*.log")), "there is no file but the saved configurations"


MULTI_MODEL = """vmargs=-XX:-UseContainerSupport
model_store=/
enable_envvars_config=true
decode_input_request=false
default_service_handler=$$SAGEMAKER_HANDLER$$
default_workers_per_model=1
async_logging=true
disable_token_authorization=true
enable_model_api=true
"""


def test_the_toolkit_of_sagemaker_with_many_models(tmp_path: Path) -> None:
    """Models come and go by JSON on the one port, from directories anywhere below the store, which is the root."""
    (port,) = free_ports(1)
    place = f"http://0.0.0.0:{port}"
    appended = {
        "inference_address": place,
        "management_address": place,
        "metrics_address": "http://127.0.0.1:0",
        "grpc_inference_port": "0",
        "grpc_management_port": "0",
    }
    text = MULTI_MODEL + "\n".join(f"{key}={value}" for key, value in appended.items())
    (tmp_path / "sagemaker-ts.properties").write_text(text)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "toolkit_service.py").write_text(TOOLKIT)
    model = tmp_path / "opt" / "ml" / "models" / "0123abcd" / "model"
    model.mkdir(parents=True)
    (model / "model.pth").write_bytes(b"weights")
    command = ["torchserve", "--start", "--model-store", "/", "--ts-config", str(tmp_path / "sagemaker-ts.properties")]
    environment = {"PYTHONPATH": str(tmp_path / "site"), "SAGEMAKER_HANDLER": "toolkit_service:handle"}
    with Deployment(tmp_path, command, environment) as server:
        assert server.request("GET", "/ping").json() == {"status": "Healthy"}
        assert server.request("GET", "/models").json() == {"models": []}
        wanted = {"model_name": "m1", "url": str(model)}
        added = server.request("POST", "/models", json=wanted)
        status = 'Model "m1" Version: 1.0 registered with 1 initial workers'
        assert (added.status_code, added.json()) == (200, {"status": status})
        assert server.request("GET", "/models").json()["models"] == [{"modelName": "m1", "modelUrl": str(model)}]
        assert server.request("POST", "/models", json=wanted).status_code == 409
        asked = server.request("POST", "/models/m1/invoke", json={"a": 1})
        assert (asked.status_code, asked.text) == (200, "false bytearray")
        absent = server.request("POST", "/models", json={"model_name": "m2", "url": "/banana"})
        assert (absent.status_code, absent.json()["type"]) == (404, "ModelNotFoundException")
        assert absent.json()["message"] == "Model not found at: /banana"
        gone = server.request("DELETE", "/models/m1")
        assert (gone.status_code, gone.json()) == (200, {"status": 'Model "m1" unregistered'})
        assert server.request("DELETE", "/models/m1").status_code == 404
        assert server.request("GET", "/ping").status_code == 200


def is_server(process: psutil.Process, directory: Path) -> bool:
    """As the toolkit looks for it, among those of this test."""
    try:
        return MARKER in process.cmdline() and process.cwd() == str(directory)
    except psutil.Error:
        return False
