"""Built-in handlers, envelopes and explanations through a real server; and the launcher that test suites use."""

from __future__ import annotations

import io
import pstats
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from harness.archives import pack
from harness.server import ServerProcess, eventually
from model_archiver import ModelArchiver, ModelArchiverConfig

MODEL = """
import torch

class Scores(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Linear(3, 6)

    def forward(self, x):
        return self.scores(x.mean((2, 3)))
"""

BAG = """
import torch

class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag(10, 6)
        self.scores = torch.nn.Linear(6, 3)

    def forward(self, indices, offsets=None):
        return self.scores(self.embedding(indices, offsets))
"""

SHORT = """
def handle(data, context):
    return None if data is None else "no list"
"""

EXPLAINING = """
from ts.torch_handler.base_handler import BaseHandler

class Explaining(BaseHandler):
    def initialize(self, context):
        self.initialized = True
    def preprocess(self, data):
        return data
    def inference(self, data):
        return data
    def postprocess(self, data):
        return data
    def describe_handle(self):
        return {"made": "of glass"}
    def get_insights(self, prepared, inputs, target):
        return [target] * len(prepared)
"""


def archive(store: Path, name: str, handler: str, model: str, extra: str | None = None) -> str:
    """Pack an eager model for a built-in handler."""
    source = store.parent / f"{name}_model.py"
    source.write_text(model)
    options = ModelArchiverConfig(
        model_name=name,
        handler=handler,
        model_file=str(source),
        version="1.0",
        extra_files=extra,
        export_path=str(store),
        force=True,
    )
    ModelArchiver.generate_model_archive(options)
    return f"{name}.mar"


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    made = ServerProcess(tmp_path_factory.mktemp("handlers"), torch=True)
    vocabulary = made.directory / "source_vocab.pt"
    torch.save({"hello": 1, "world": 2, "hello world": 3}, vocabulary)
    archive(made.store, "images", "image_classifier", MODEL)
    archive(made.store, "texts", "text_classifier", BAG, str(vocabulary))
    pack(made.store, "short", SHORT)
    with made:
        for name in ("images", "texts", "short"):
            assert made.register(f"{name}.mar").status_code == 200
        yield made


def test_images(server: ServerProcess) -> None:
    answer = server.predict("images", picture())
    assert answer.status_code == 200, answer.text
    assert "content-type" not in answer.headers
    probabilities = answer.json()
    assert len(probabilities) == 5
    assert list(probabilities.values()) == sorted(probabilities.values(), reverse=True)


@pytest.mark.check("explain", 2)
@pytest.mark.check("explain", 5)
def test_explanations_of_images(server: ServerProcess) -> None:
    form = {"data": ("image.png", picture(), "image/png"), "target": (None, b"2")}
    answer = server.request("POST", "/explanations/images", files=form)
    assert answer.status_code == 200, answer.text
    assert torch.tensor(answer.json()).shape == (3, 224, 224)
    eventually(lambda: "input shape torch.Size([1, 3, 224, 224])" in server.log("model_log.log"))


def test_texts(server: ServerProcess) -> None:
    headers = {"content-type": "text/plain"}
    answer = server.predict("texts", b"Hello world!", headers=headers)
    assert set(answer.json()) == {"0", "1", "2"}
    assert sum(answer.json().values()) == pytest.approx(1)
    explained = server.request("POST", "/explanations/texts", content=b"Hello world!", headers=headers).json()
    assert explained["words"] == ["hello", "world"]
    assert server.predict("texts", b"stranger", headers=headers).status_code == 503


def test_a_broken_contract_is_answered_with_the_rule(server: ServerProcess) -> None:
    answer = server.predict("short", b"x")
    assert (answer.status_code, answer.json()["message"]) == (503, "Invalid model predict output")
    assert answer.json()["cause"] == {
        "reason": "handler contract broken",
        "detail": "a handler returns a list with one element for each request of the batch: expected 1, got a str",
    }
    eventually(lambda: 'handler.py", line 2, in handle' in server.log("model_log.log"))
    assert server.describe("short")["workers"][0]["status"] == "READY"


def test_envelopes(tmp_path: Path) -> None:
    made = ServerProcess(tmp_path, config={"service_envelope": "kserve"}, torch=True)
    pack(made.store, "glass", EXPLAINING)
    with made as server:
        assert server.register("glass.mar").status_code == 200
        body = {"instances": [{"data": 1, "target": 2}, {"data": 3}]}
        for mime in ("application/json", "application/octet-stream"):
            answer = server.request("POST", "/v1/models/glass:predict", json=body, headers={"content-type": mime})
            assert answer.json() == {"predictions": body["instances"]}
        assert server.request("POST", "/v1/models/glass:explain", json=body).json() == {"explanations": [2, 2]}
        bad = server.request("POST", "/v1/models/glass:predict", content=b"{")
        assert bad.status_code == 400
        assert bad.json()["message"].startswith("request is not valid JSON")
        described = server.request("GET", "/models/glass?customized=true", "Management")
        assert described.json()[0]["customizedMetadata"] == {"made": "of glass"}


@pytest.mark.check("explain", 9)
@pytest.mark.check("explain", 13)
@pytest.mark.check("explain", 14)
def test_profiles(tmp_path: Path) -> None:
    """Traces of torch, and of what Python did, while the answer stays what it is."""
    traces = tmp_path / "traces"
    switches = {"ENABLE_TORCH_PROFILER": "TRUE", "TORCH_PROFILER_DIR": str(traces), "TS_BENCHMARK": "TRUE"}
    made = ServerProcess(tmp_path, environment=switches)
    archive(made.store, "images", "image_classifier", MODEL)
    with made as server:
        assert server.register("images.mar", model_name="renamed").status_code == 200
        assert len(server.predict("renamed", picture()).json()) == 5
        assert len(list((traces / "images").glob("*.pt.trace.json"))) == 1
        described = server.request("GET", "/models/renamed?customized=true", "Management")
        assert described.json()[0]["customizedMetadata"] == {}
        assert len(list((traces / "images").iterdir())) == 1
        profile = pstats.Stats(str(made.temp / "tsPythonProfile.prof")).get_stats_profile()
        assert "describe_handle" in profile.func_profiles  # of the last call
        wanted = (f"Saving chrome trace to : {traces / 'images'}", "Self CPU time total: ")
        eventually(lambda: all(text in server.log("model_log.log") for text in wanted))


LAUNCH = """
from ts import launcher

lines = launcher.start(model_store="store", snapshot_file="config.properties", no_config_snapshots=True,
                       disable_token=True, models="noop=noop.mar", enable_model_api=True)
launcher.stop()
left = list(iter(lines.get, None))
print("read to the end")
"""


def test_the_launcher_of_test_suites(tmp_path: Path) -> None:
    made = ServerProcess(tmp_path)  # never started by itself: the launcher does
    pack(made.store, "noop", "def handle(data, context):\n    return data and ['ok'] * len(data)\n")
    command = [sys.executable, "-c", LAUNCH]
    done = subprocess.run(command, cwd=tmp_path, env=made.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Model server started." in done.stdout
    assert done.stdout.endswith("read to the end\n")
    assert not made.pid_file.exists()
