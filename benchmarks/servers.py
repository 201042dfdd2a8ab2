"""The servers under measurement, behind one protocol: start with some deployments, give their URLs, stop."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

from benchmarks.archives import Archives
from benchmarks.client import Answer, call, poll
from benchmarks.plan import MAX_BATCH_DELAY, Deployment
from benchmarks.processes import ProcessTree

READY_INTERVAL = 0.05  # seconds
JOB_QUEUE_SIZE = 1000

# Variables that would lead a server to other code, other files or other settings than the benchmark gives it.
_HIDDEN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TMP", "TMPDIR")


class CallFailed(Exception):
    """A server answered a call of the benchmark with an error."""


class Server(Protocol):
    """A server that can be put under load."""

    @property
    def tree(self) -> ProcessTree: ...

    def start(self) -> None:
        """Start the processes; it answers requests when this returns."""

    def deploy(self, deployment: Deployment) -> None:
        """Serve the deployment with one worker; it answers predictions when this returns."""

    def url(self, deployment: Deployment) -> str: ...

    def stop(self) -> None: ...


class GrpcServer(Protocol):
    """A server whose `Predictions` can be put under load."""

    @property
    def tree(self) -> ProcessTree: ...

    @property
    def grpc_target(self) -> str: ...

    def start(self) -> None:
        """Start the processes; it answers calls when this returns."""

    def deploy(self, deployment: Deployment) -> None:
        """Serve the deployment with one worker; it answers predictions when this returns."""

    def stop(self) -> None: ...


class InferServer(Protocol):
    """A server whose Open Inference can be put under load."""

    @property
    def tree(self) -> ProcessTree: ...

    def start(self) -> None:
        """Start the processes; it answers requests when this returns."""

    def deploy(self, deployment: Deployment) -> None:
        """Serve the deployment with one worker; it answers when this returns."""

    def infer_url(self, deployment: Deployment) -> str: ...

    def stop(self) -> None: ...


class RestServer:
    """A server with TorchServe's command line and REST interface: TorchServe, and modelserver."""

    tree: ProcessTree

    def __init__(
        self,
        executable: Path,
        archives: Archives,
        directory: Path,
        extra_arguments: Sequence[str] = (),
        *,
        keys: bool = False,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """With `keys`, clients need them: see `authorization`; `settings` beside those that all servers have."""
        self._executable = executable
        self._archives = archives
        self._directory = directory
        self._extra_arguments = extra_arguments
        self._keys = keys
        self._scratch = Path(tempfile.mkdtemp(prefix="bench-"))  # short: Unix socket paths have 107 bytes
        inference, management, metrics, grpc_inference, grpc_management = free_ports(5)
        self.grpc_target = f"127.0.0.1:{grpc_inference}"
        self._inference = f"http://127.0.0.1:{inference}"
        self._management = f"http://127.0.0.1:{management}"
        self._settings = {
            "inference_address": self._inference,
            "management_address": self._management,
            "metrics_address": f"http://127.0.0.1:{metrics}",
            "grpc_inference_port": grpc_inference,
            "grpc_management_port": grpc_management,
            "job_queue_size": JOB_QUEUE_SIZE,
            **(settings or {}),
        }

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "config.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in self._settings.items()))
        command = [str(self._executable), "--start", "--foreground", "--ncs"]
        command += ["--enable-model-api", *([] if self._keys else ["--disable-token-auth"])]
        command += ["--model-store", str(self._archives.store), "--ts-config", str(config), *self._extra_arguments]
        environment = clean_environment(self._scratch) | {
            "PATH": f"{self._executable.parent}{os.pathsep}{os.environ['PATH']}",
            "LOG_LOCATION": str(self._directory / "logs"),
            "METRICS_LOCATION": str(self._directory / "logs"),
        }
        self.tree = ProcessTree(command, environment, self._directory, self._directory / "console.log")
        wait_for_answer(self.tree, f"{self._inference}/ping")

    def deploy(self, deployment: Deployment) -> None:
        self.register(deployment)
        poll(lambda: self.ready_workers(deployment) == 1, f"{deployment.model} READY", interval=READY_INTERVAL)

    def pack(self, deployment: Deployment) -> None:
        """Have the archive ready, which `register` would see to."""
        self._archives.of(deployment.handler)

    def register(self, deployment: Deployment, model: str = "") -> None:
        """Register, under another name perhaps, with one worker and wait for it, as the call itself does."""
        parameters = {
            "url": self._archives.of(deployment.handler).name,
            "model_name": model or deployment.model,
            "batch_size": deployment.batch,
            "max_batch_delay": MAX_BATCH_DELAY,
            "initial_workers": 1,
            "synchronous": "true",
        }
        expect_ok(self._manage("POST", f"/models?{urlencode(parameters)}"), f"register {deployment.model}")

    def unregister(self, model: str) -> None:
        expect_ok(self._manage("DELETE", f"/models/{model}"), f"unregister {model}")

    def scale(self, deployment: Deployment, workers: int) -> None:
        """Change the number of workers and wait for them, as the call itself does."""
        parameters = {"min_worker": workers, "max_worker": workers, "synchronous": "true"}
        answer = self._manage("PUT", f"/models/{deployment.model}?{urlencode(parameters)}")
        expect_ok(answer, f"scale {deployment.model}")

    def workers(self, deployment: Deployment) -> dict[str, int]:
        """Processes of the workers that are READY, by worker id."""
        answer = expect_ok(self._manage("GET", f"/models/{deployment.model}"), "describe")
        workers = answer.json()[0]["workers"]
        return {worker["id"]: worker["pid"] for worker in workers if worker["status"] == "READY"}

    def worker_pids(self, deployment: Deployment) -> list[int]:
        """Processes of the workers that are READY."""
        return list(self.workers(deployment).values())

    def ready_workers(self, deployment: Deployment) -> int:
        return len(self.workers(deployment))

    def url(self, deployment: Deployment) -> str:
        return self.url_of(deployment.model)

    def infer_url(self, deployment: Deployment) -> str:
        """Where Open Inference is asked for."""
        return f"{self._inference}/v2/models/{deployment.model}/infer"

    @property
    def metrics_url(self) -> str:
        return f"{self._settings['metrics_address']}/metrics"

    @property
    def ping_url(self) -> str:
        return f"{self._inference}/ping"

    def url_of(self, model: str) -> str:
        """Where predictions of a model are, whether it is there or not."""
        return f"{self._inference}/predictions/{model}"

    def authorization(self, api: str) -> dict[str, str]:
        """The header that opens an API, `inference` or `management`, of a running server; none where none is needed."""
        if not self._keys:
            return {}
        keys = json.loads((self._directory / "key_file.json").read_text())
        return {"Authorization": f"Bearer {keys[api]['key']}"}

    def _manage(self, method: str, target: str) -> Answer:
        return call(method, self._management + target, headers=self.authorization("management"))

    def stop(self) -> None:
        self.tree.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)


class PrototypeServer:
    """The prototype of the hot path: its models are arguments of the start, so it starts with them."""

    tree: ProcessTree

    def __init__(self, deployments: Sequence[Deployment], archives: Archives, directory: Path) -> None:
        self._models = [f"{each.model}={archives.of(each.handler)}:{each.batch}" for each in deployments]
        self._directory = directory
        self._scratch = Path(tempfile.mkdtemp(prefix="bench-"))
        (self._port,) = free_ports(1)

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.prototype.frontend", str(self._port), *self._models]
        root = Path(__file__).resolve().parent.parent
        self.tree = ProcessTree(command, clean_environment(self._scratch), root, self._directory / "console.log")
        wait_for_answer(self.tree, f"http://127.0.0.1:{self._port}/")

    def deploy(self, deployment: Deployment) -> None:
        """Done by start."""

    def url(self, deployment: Deployment) -> str:
        return f"http://127.0.0.1:{self._port}/predictions/{deployment.model}"

    def stop(self) -> None:
        self.tree.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)


class EchoServer:
    """A server of grpcio with nothing behind it."""

    tree: ProcessTree

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._scratch = Path(tempfile.mkdtemp(prefix="bench-"))
        (self._port,) = free_ports(1)
        self.grpc_target = f"127.0.0.1:{self._port}"

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.grpc_echo", str(self._port)]
        root = Path(__file__).resolve().parent.parent
        self.tree = ProcessTree(command, clean_environment(self._scratch), root, self._directory / "console.log")
        poll(self._listens, self.grpc_target, interval=READY_INTERVAL)

    def _listens(self) -> bool:
        """Raises CallFailed if it has ended."""
        if not self.tree.running():
            raise CallFailed(f"server ended while it started, see {self.tree.log}")
        with socket.socket() as knocking:
            return knocking.connect_ex(("127.0.0.1", self._port)) == 0

    def deploy(self, deployment: Deployment) -> None:
        """It has no models: any is served."""

    def stop(self) -> None:
        self.tree.stop()
        shutil.rmtree(self._scratch, ignore_errors=True)


def wait_for_answer(tree: ProcessTree, url: str) -> None:
    """Until the server answers anything. Raises CallFailed if it ends instead."""

    def answers() -> bool:
        if not tree.running():
            raise CallFailed(f"server ended while it started, see {tree.log}")
        return call("GET", url).status > 0

    poll(answers, url, interval=READY_INTERVAL)


def expect_ok(answer: Answer, what: str) -> Answer:
    """Raises CallFailed for any status but 200."""
    if answer.status != 200:
        raise CallFailed(f"{what}: {answer.status} {answer.body.decode(errors='replace')}")
    return answer


def predict(server: Server, deployment: Deployment) -> bool:
    """Whether one prediction is answered as it should be."""
    handler = deployment.handler
    answer = call("POST", server.url(deployment), handler.body.encode(), handler.mime)
    return answer.status == 200 and answer.body.decode().startswith(handler.answer)


def clean_environment(scratch: Path) -> dict[str, str]:
    """This process's environment without what would redirect a server, and with a temporary directory of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in _HIDDEN and not name.startswith("TS_")}
    return kept | {"TMPDIR": str(scratch), "TEMP": str(scratch)}


def free_ports(count: int) -> list[int]:
    """Different TCP ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
