"""The runtime for KServe, as its manifest starts it: one port for everything, ready when the models are."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml

from contract.server import free_ports
from harness.archives import NOOP, pack
from harness.server import MODELSERVER, ServerProcess, eventually

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "docs" / "deployment" / "kserve" / "cluster-serving-runtime.yaml"
CONFIGURATION = ROOT / "tests" / "e2e" / "deployments" / "kserve" / "config.properties"

GATED = """
import os, time

class Gated:
    def initialize(self, context):
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.01)

    def handle(self, data, context):
        return data
"""


def container() -> dict[str, Any]:
    """What the manifest says of the one container."""
    spec = yaml.safe_load(MANIFEST.read_text())["spec"]
    (only,) = spec["containers"]
    assert isinstance(only, dict)
    return only


class Pod(ServerProcess):
    """The manifest's container, with the storage below a directory instead of at /mnt/models."""

    def __init__(self, root: Path, envelope: str, **models: str) -> None:
        self.models = root / "mnt" / "models"
        self.gate = root / "gate"
        (self.models / "config").mkdir(parents=True)
        (self.models / "model-store").mkdir()
        for name, handler in models.items():
            pack(self.models / "model-store", name, handler)
        limits = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 50, "responseTimeout": 120}
        versions = {name: {"1.0": {"defaultVersion": True, "marName": f"{name}.mar", **limits}} for name in models}
        snapshot = json.dumps({"name": "startup.cfg", "modelCount": len(models), "models": versions})
        text = self.moved(CONFIGURATION.read_text())
        text = re.sub(r"model_snapshot=.*", f"model_snapshot={snapshot}", text)
        text = text.replace("grpc_management_port=7071", "grpc_management_port=0")
        (self.models / "config" / "config.properties").write_text(text + "preload_modules=\n")
        super().__init__(root, environment=self.variables(envelope) | {"GATE": str(self.gate)})
        manifest = container()
        assert manifest["command"] == ["modelserver"]
        self.command = [str(MODELSERVER), *map(self.moved, manifest["args"])]

    def variables(self, envelope: str) -> dict[str, str]:
        """As the manifest sets them, on ports that are free here."""
        ports = dict(zip(("8080", "8082", "7070"), map(str, free_ports(3)), strict=True))
        self.port = ports["8080"]
        found = {entry["name"]: entry["value"] for entry in container()["env"]}
        found["TS_SERVICE_ENVELOPE"] = found["TS_SERVICE_ENVELOPE"].replace("{{.Labels.serviceEnvelope}}", envelope)
        found = {name: re.sub("8080|8082|7070", lambda port: ports[port[0]], value) for name, value in found.items()}
        # The harness has directories of its own for what the manifest puts into /tmp.
        return {name: value for name, value in found.items() if not value.startswith("/tmp")}

    def moved(self, text: str) -> str:
        """The same text with the storage below our directory."""
        return text.replace("/mnt/models", str(self.models))

    def probe(self) -> Any:
        """What the readiness probe of the manifest gets."""
        asked = container()["readinessProbe"]["httpGet"]
        assert asked["port"] == 8080
        return self.request("GET", asked["path"])


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with Pod(tmp_path_factory.mktemp("pod"), "kserve", digit=NOOP, slow=GATED) as server:
        yield server


def test_ready_when_the_models_are(pod: Pod) -> None:
    """First of all tests: one model keeps loading until it is let."""
    eventually(lambda: "digit" not in pod.probe().text)
    answer = pod.probe()
    expected = {"ready": False, "error": "Not ready: slow 1.0 (workers are loading)"}
    assert (answer.status_code, answer.json()) == (503, expected)
    assert pod.request("GET", "/v2/health/live").json() == {"live": True}
    pod.gate.touch()
    eventually(lambda: pod.probe().status_code == 200)
    assert pod.probe().json() == {"ready": True}


def test_one_port_for_everything(pod: Pod) -> None:
    assert pod.url() == f"http://0.0.0.0:{pod.port}"
    assert "Management API bind to" not in pod.output
    eventually(lambda: pod.request("GET", "/v2/models/digit/ready").status_code == 200)
    assert pod.request("GET", "/ping").json() == {"status": "Healthy"}
    assert [model["modelName"] for model in pod.request("GET", "/models").json()["models"]] == ["digit", "slow"]
    asked = pod.request("POST", "/v1/models/digit:predict", json={"instances": [1, 2]})
    assert asked.json() == {"predictions": ["ok", "ok"]}
    assert pod.request("GET", "/v1/models").json() == {"models": ["digit", "slow"]}
    assert pod.request("GET", "/").json() == {"status": "alive"}
    assert pod.request("DELETE", "/models/digit").status_code == 405, "models come with the storage alone"


def test_a_model_that_has_been_ready_does_not_hold_up_the_others(pod: Pod) -> None:
    """Scaled away, as if all of its workers were gone."""
    pod.gate.touch()
    eventually(lambda: pod.probe().status_code == 200)
    assert pod.request("PUT", "/models/slow?min_worker=0&synchronous=true").status_code == 200
    assert pod.request("GET", "/v2/models/slow/ready").status_code == 503
    assert pod.probe().status_code == 200


def test_an_archive_that_cannot_be_opened_holds_up_the_start(tmp_path: Path) -> None:
    pod = Pod(tmp_path, "kservev2", digit=NOOP)
    with ZipFile(pod.models / "model-store" / "digit.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", "{")
    with pod:
        answer = pod.probe()
        assert (answer.status_code, answer.json()["error"]) == (503, "Not ready: digit (not registered)")


def test_a_pod_that_is_about_to_stop_is_not_ready(tmp_path: Path) -> None:
    pod = Pod(tmp_path, "kserve", digit=NOOP)
    pod.environment["TS_LAME_DUCK_DELAY"] = "60"
    with pod:
        eventually(lambda: pod.probe().status_code == 200)
        assert pod.process is not None
        pod.process.send_signal(signal.SIGTERM)
        eventually(lambda: pod.probe().status_code == 503)
        assert pod.probe().json()["error"] == "Not ready: the server is about to stop"
        assert pod.request("POST", "/v1/models/digit:predict", json={"instances": [1]}).json() == {
            "predictions": ["ok"]
        }
