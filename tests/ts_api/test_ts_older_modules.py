"""Modules of older handlers, of tests and of scripts: stores of metrics, stand-ins, legacy services, small tools."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import ts.metrics.system_metrics
from ts.context import Context
from ts.metrics.dimension import Dimension
from ts.metrics.metric import Metric
from ts.metrics.metric_encoder import MetricEncoder
from ts.metrics.metrics_store import MetricsStore
from ts.metrics.process_memory_metric import check_process_mem_usage, get_cpu_usage
from ts.model_service.model_service import SingleNodeService
from ts.torch_handler.base_handler import BaseHandler
from ts.torch_handler.unit_tests.test_utils.mock_context import MockContext
from ts.torch_handler.unit_tests.test_utils.model_dir import copy_files, download_model
from ts.utils import hf_utils, setup_model_venv
from ts.utils.timeit_decorator import timeit


def lines(store: MetricsStore) -> list[str]:
    """Metrics as text, without host and time."""
    return [str(metric).partition("|#hostname:")[0] for metric in store.store]


def test_a_store_keeps_metrics_in_order() -> None:
    store = MetricsStore({0: "a", 1: "b"}, "m")
    store.add_counter("c", 2, 0)
    store.add_counter("c", 3)
    store.add_counter("c", 4, 0)
    store.add_time("t", 5.5)
    store.add_time("t", 6.5)
    store.add_size("s", 1, unit="GB", dimensions=[Dimension("Kind", "big")])
    store.add_percent("p", 50)
    store.add_error("e", "boom")
    store.add_metric("x", 1, "furlongs", 1)
    assert lines(store) == [
        "c.Count:6|#ModelName:m,Level:Model",
        "c.Count:3|#ModelName:m,Level:Model",
        "t.Milliseconds:6.5|#ModelName:m,Level:Model",
        "s.Gigabytes:1|#Kind:big,ModelName:m,Level:Model",
        "p.Percent:50|#ModelName:m,Level:Model",
        "e.unit:boom|#Level:Error",
        "x.furlongs:1|#ModelName:m,Level:Model",
    ]
    assert list(store.cache)[:2] == ["c-count-a-ModelName:m-Level:Model", "c-count-a,b-ModelName:m-Level:Model"]
    assert "e--None-Level:Error" in store.cache
    assert [metric.request_id for metric in store.store][-2:] == [None, "b"]


def test_a_store_refuses_other_units() -> None:
    store = MetricsStore({}, "m")
    with pytest.raises(ValueError, match="timed metric"):
        store.add_time("t", 1, unit="h")
    with pytest.raises(ValueError, match="size based metric"):
        store.add_size("s", 1, unit="TB")


def test_metrics_as_json() -> None:
    text = json.dumps({"a": Metric("n", 1, "ms", [Dimension("x", "y")])}, cls=MetricEncoder)
    members = json.loads(text)["a"]
    assert (members["MetricName"], members["Dimensions"]) == ("n", [{"Name": "x", "Value": "y"}])
    with pytest.raises(TypeError):
        json.dumps(object(), cls=MetricEncoder)


def test_memory_of_processes(caplog: pytest.LogCaptureFixture) -> None:
    assert get_cpu_usage(os.getpid()) > 1 << 20
    assert get_cpu_usage("no number") == 0
    caplog.clear()
    with caplog.at_level(logging.INFO):
        check_process_mem_usage(io.StringIO(f"{os.getpid()},{os.getppid()}\nignored\n"))
    assert [message.partition(":")[0] for message in caplog.messages] == [str(os.getpid()), str(os.getppid())]
    check_process_mem_usage(io.StringIO("\n"))


def test_the_collector_script() -> None:
    script = str(Path(ts.metrics.system_metrics.__file__).with_name("metric_collector.py"))
    pid = str(os.getpid())
    done = subprocess.run([sys.executable, script, "--gpu", "0"], input=pid, capture_output=True, text=True, check=True)
    metrics, _, memory = done.stdout.partition("\n\n")
    assert [line.partition(".")[0] for line in metrics.splitlines()] == [
        "CPUUtilization",
        "DiskAvailable",
        "DiskUsage",
        "DiskUtilization",
        "MemoryAvailable",
        "MemoryUsed",
        "MemoryUtilization",
    ]
    assert all("|#Level:Host|#hostname:" in line for line in metrics.splitlines())
    assert int(memory.removeprefix(f"{pid}:")) > 1 << 20


def test_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '100, 400, 7'\necho '0, 400, 0'\necho '1, 2, 3'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(ts.metrics.system_metrics, "system_metrics", [])
    ts.metrics.system_metrics.gpu_utilization(2)
    found = [str(metric).partition("|#hostname")[0] for metric in ts.metrics.system_metrics.system_metrics]
    assert found[:3] == [
        "GPUMemoryUtilization.Percent:25.0|#Level:Host,device_id:0",
        "GPUMemoryUsed.Megabytes:100.0|#Level:Host,device_id:0",
        "GPUUtilization.Percent:7.0|#Level:Host,device_id:0",
    ]
    assert len(found) == 6


def test_a_stand_in_for_the_context(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("handler:\n  profile: true\n")
    torch.save({}, tmp_path / "weights.pth")
    (tmp_path / "model.py").write_text("import torch\nclass M(torch.nn.Module):\n    def forward(self, x): return x\n")
    given = MockContext("weights.pth", str(tmp_path), "model.py", model_yaml_config_file="config.yaml")
    handler = BaseHandler()
    handler.initialize(given)
    assert handler.handle([[1.0]], given) == [[1.0]]
    assert [metric.name for metric in given.metrics.store] == [
        "ts_handler_preprocess",
        "ts_handler_inference",
        "ts_handler_postprocess",
        "HandlerTime",
    ]
    assert [given.get_request_header(idx, "explain") for idx in (0, 1)] == [False, False]
    given.explain = True
    assert [given.get_request_header(idx, "explain") for idx in (0, 1)] == [False, True]


def test_model_directories(tmp_path: Path) -> None:
    (tmp_path / "source" / "deep").mkdir(parents=True)
    (tmp_path / "source" / "deep" / "a.txt").write_text("text")
    (tmp_path / "model").mkdir()
    copy_files(tmp_path / "source", tmp_path / "model", {"deep/a.txt": "b.txt"})
    download_model((tmp_path / "source" / "deep" / "a.txt").as_uri(), tmp_path / "model")
    assert {path.name: path.read_text() for path in (tmp_path / "model").iterdir()} == {
        "b.txt": "text",
        "model.pt": "text",
    }


def test_a_legacy_service() -> None:
    class Doubling(SingleNodeService):
        def _preprocess(self, data: Any) -> Any:
            return [row["n"] for row in data]

        def _inference(self, data: Any) -> Any:
            return [number * 2 for number in data]

        def _postprocess(self, data: Any) -> Any:
            return [str(number) for number in data]

    service = Doubling("m", "/models", None)
    given = Context("served", "/elsewhere", {"model": {}}, 1, 3, "0")
    service.initialize(given)
    assert (service.model_name, service.model_dir, service.gpu, service.manifest) == (
        "served",
        "/elsewhere",
        3,
        {"model": {}},
    )
    assert service.handle([{"n": 1}, {"n": 2}], given) == ["2", "4"]
    assert service.context is given
    assert service.ping() is service.signature() is None


def test_timing_of_calls(capsys: pytest.CaptureFixture[str]) -> None:
    @timeit
    def add(x: int, y: int) -> int:
        return x + y

    assert (add(1, y=2), add.__name__) == (3, "add")
    assert capsys.readouterr().out.startswith("add: wall time ")


@pytest.mark.parametrize(("token", "sent"), [(True, "from env"), (False, False), ("own", "own")])
def test_models_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: Any, sent: Any) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(model_id: str, **arguments: Any) -> str:
        asked.update(arguments, model_id=model_id)
        return str(tmp_path)

    hub = ModuleType("huggingface_hub")
    vars(hub)["snapshot_download"] = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "from env")
    assert hf_utils.download_model("org/model", model_path="cache", use_auth_token=token) == tmp_path
    assert (asked["model_id"], asked["revision"], asked["cache_dir"], asked["token"]) == (
        "org/model",
        "main",
        "cache",
        sent,
    )
    assert "*.safetensors" in asked["allow_patterns"]


def test_a_virtual_environment_sees_the_packages_of_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["setup_model_venv.py", str(tmp_path / "venv")])
    setup_model_venv.main()
    script = "import sys, msgspec, pip; print(sys.prefix, pip.__file__)"
    done = subprocess.run([tmp_path / "venv/bin/python", "-c", script], capture_output=True, text=True, check=True)
    prefix, pip = done.stdout.split()
    assert prefix == str(tmp_path / "venv")
    assert pip.startswith(prefix)  # its own packages come first
