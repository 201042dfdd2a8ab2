"""What the section `pt2` and the key `handler.profile` of a model's configuration do to a default handler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from contract.rest_server import serving
from contract.server import ContractServer
from harness.server import eventually

check = pytest.mark.check
CONFIG = {"model_metrics_auto_detect": "true"}  # the definitions do not have those of `timed`

NETWORK = """
import torch


class Double(torch.nn.Module):
    def forward(self, numbers):
        return numbers * 2
"""
HANDLER = """
import json

import torch
from ts.handler_utils.timer import timed
from ts.torch_handler.base_handler import BaseHandler


class DoubleHandler(BaseHandler):
    def initialize(self, context):
        context.manifest["model"]["modelFile"] = "network.py"
        super().initialize(context)

    @timed
    def preprocess(self, data):
        rows = [row["body"] for row in data]
        return torch.tensor([json.loads(row) if isinstance(row, (bytes, bytearray)) else row for row in rows])
"""


@contextmanager
def doubling(server: ContractServer, name: str, config: str) -> Iterator[None]:
    """The model, with this configuration."""
    with serving(server, name, HANDLER, config=config, files={"network.py": NETWORK}):
        yield


def doubled(server: ContractServer, name: str) -> object:
    return server.predict(name, b"[1.5]", headers={"Content-Type": "application/json"}).json()


@check("model config", 19)
def test_a_model_is_compiled(server: ContractServer) -> None:
    """The log says how, in the order of the file. The compiler itself runs with the first prediction."""
    pt2 = "pt2:\n  compile:\n    enable: true\n    backend: inductor\n    mode: reduce-overhead\n"
    with doubling(server, "compiled", pt2):
        text = "Compiled model with backend inductor, mode reduce-overhead"
        eventually(lambda: text in server.log("model_log.log"))


@check("model config", 20)
def test_a_model_is_not_compiled(server: ContractServer) -> None:
    """Where the section says so, whatever else it says."""
    pt2 = "pt2:\n  compile:\n    enable: false\n    backend: openvino\n"
    with doubling(server, "plain", pt2):
        assert doubled(server, "plain") == [3.0]
        assert "backend openvino" not in server.log("model_log.log")


@check("model config", 21)
def test_a_compiler_that_nobody_knows(server: ContractServer) -> None:
    """The model is served as it is."""
    with doubling(server, "unknown", "pt2:\n  compile:\n    enable: true\n    backend: magic\n"):
        assert doubled(server, "unknown") == [3.0]
        eventually(lambda: "magic is not a supported backend" in server.log("model_log.log"))


@check("model config", 24)
def test_a_handler_that_measures_its_steps(server: ContractServer) -> None:
    """One metric for each step, in milliseconds; none without the key."""
    with (
        doubling(server, "unmeasured", "handler:\n  profile: false\n"),
        doubling(server, "measured", "handler:\n  profile: true\n"),
    ):
        for name in ("unmeasured", "measured"):
            assert doubled(server, name) == [3.0]
        steps = ("preprocess", "inference", "postprocess")
        eventually(lambda: all(measured(server, f"ts_handler_{step}") for step in steps))
        assert all("ModelName:measured" in line for line in measured(server, "ts_handler_"))


def measured(server: ContractServer, metric: str) -> list[str]:
    """Lines of the metric log that begin with this name."""
    return [line for line in server.log("model_metrics.log").splitlines() if metric in line]
