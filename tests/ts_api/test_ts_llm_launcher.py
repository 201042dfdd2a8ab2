"""What `python -m ts.llm_launcher` makes of its flags, and the engines of TensorRT-LLM that it has built."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ts import llm_launcher
from ts.handler_utils.trt_llm_engine import engine_class, ensure_engine

FLAGS = [
    "--model_name",
    "--model_store",
    "--model_id",
    "--disable_token_auth",
    "--vllm_engine.max_num_seqs",
    "--vllm_engine.max_model_len",
    "--vllm_engine.download_dir",
    "--startup_timeout",
    "--engine",
    "--dtype",
    "--trt_llm_engine.max_batch_size",
    "--trt_llm_engine.kv_cache_free_gpu_memory_fraction",
]


@pytest.mark.check("generative", 30)
def test_the_help_has_every_flag() -> None:
    command = [sys.executable, "-m", "ts.llm_launcher", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [flag for flag in FLAGS if f"  {flag}" not in done.stdout] == []


def test_defaults() -> None:
    assert vars(llm_launcher.parser().parse_args([])) == {
        "model_name": "model",
        "model_store": "model_store",
        "model_id": "meta-llama/Meta-Llama-3.1-8B-Instruct",
        "disable_token_auth": False,
        "startup_timeout": 1200,
        "engine": "vllm",
        "max_num_seqs": 256,
        "max_model_len": None,
        "download_dir": None,
        "dtype": "bfloat16",
        "max_batch_size": 4,
        "kv_cache_free_gpu_memory_fraction": 0.1,
    }


@pytest.mark.parametrize(
    ("flag", "value", "complaint"),
    [
        ("--startup_timeout", "0", "0 is not an integer above 0"),
        ("--vllm_engine.max_num_seqs", "many", "many is not an integer above 0"),
        ("--vllm_engine.max_model_len", "-1", "-1 is not an integer above 0"),
        ("--trt_llm_engine.max_batch_size", "1.5", "1.5 is not an integer above 0"),
        ("--trt_llm_engine.kv_cache_free_gpu_memory_fraction", "2", "2 is not a number above 0 and at most 1"),
        ("--trt_llm_engine.kv_cache_free_gpu_memory_fraction", "nan", "nan is not a number above 0 and at most 1"),
        ("--trt_llm_engine.kv_cache_free_gpu_memory_fraction", "x", "x is not a number above 0 and at most 1"),
    ],
)
def test_a_value_that_cannot_be(flag: str, value: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        llm_launcher.parser().parse_args([f"{flag}={value}"])
    assert f"argument {flag}: {complaint}" in capsys.readouterr().err


@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_a_worker_gets_all_gpus(gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--model_id", "org/name", "--vllm_engine.max_model_len", "99", "--vllm_engine.download_dir", "hub"]
    arguments = llm_launcher.parser().parse_args([*flags, "--startup_timeout", "7"])
    made = llm_launcher.configuration(arguments, llm_launcher.vllm_section(arguments, gpus), gpus)
    engine = {"max_num_seqs": 256, "max_model_len": 99, "download_dir": str(tmp_path / "hub")}
    assert made == {
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": 1,
        "maxBatchDelay": 100,
        "responseTimeout": 1200,
        "startupTimeout": 7,
        "deviceType": "gpu",
        "asyncCommunication": True,
        **({"parallelType": "custom", "parallelLevel": gpus} if gpus else {}),
        "handler": {
            "model_path": "org/name",
            "vllm_engine_config": {**engine, "tensor_parallel_size": max(gpus, 1)},
        },
    }


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "--engine vllm needs the package vllm, which is not installed for .*: pip install vllm"),
        (["--engine", "trt_llm"], "--engine trt_llm needs the package tensorrt_llm, .*: pip install tensorrt_llm"),
        (["--engine", "other"], "Unsupported LLM Engine: other, choose from vllm, trt_llm"),
    ],
)
def test_an_engine_that_is_not_there(
    flags: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made, stopped or started. A folder with the name of the package is not the package."""
    for name in ("vllm", "tensorrt_llm"):
        (tmp_path / name).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match=complaint):
        llm_launcher.launch(llm_launcher.parser().parse_args(flags))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tensorrt_llm", "vllm"]


LLMAPI = """
import json
from pathlib import Path


class BuildConfig(dict):
    pass


class LLM:
    def __init__(self, model, dtype, build_config):
        if model == "broken":
            raise ValueError("no such architecture")
        self.made = [model, dtype, build_config]

    def save(self, folder):
        Path(folder).mkdir()
        Path(folder, "made.json").write_text(json.dumps(self.made))
"""


@pytest.fixture
def tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A double of the library, for the processes that build."""
    package = tmp_path / "packages" / "tensorrt_llm"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "llmapi.py").write_text(LLMAPI)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


@pytest.mark.usefixtures("tensorrt")
def test_an_engine_is_built_once(tmp_path: Path) -> None:
    folder = tmp_path / "engine"

    def made(checkpoint: str, dtype: str, size: int) -> Any:
        ensure_engine(folder, checkpoint, dtype, size)
        return json.loads((folder / "made.json").read_text())

    assert made("weights", "bfloat16", 4) == ["weights", "bfloat16", {"max_batch_size": 4}]
    (folder / "made.json").write_text('"kept"')
    assert made("weights", "bfloat16", 4) == "kept"
    assert made("weights", "float16", 4) == ["weights", "float16", {"max_batch_size": 4}]
    (folder / "built_from.json").unlink()  # what a build that was interrupted leaves
    (folder / "made.json").write_text('"half"')
    assert made("weights", "float16", 4) == ["weights", "float16", {"max_batch_size": 4}]


@pytest.mark.usefixtures("tensorrt")
def test_an_engine_that_cannot_be_built(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="could not build an engine of broken: exit status 1"):
        ensure_engine(tmp_path / "engine", "broken", "bfloat16", 4)
    assert "ValueError: no such architecture" in capfd.readouterr().err


def test_the_class_of_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that newer releases have for it goes before; one that lacks something says what."""
    package = tmp_path / "tensorrt_llm"
    package.mkdir()
    for name, text in (("__init__", ""), ("_tensorrt_engine", "LLM = 1"), ("llmapi", "LLM = 2")):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    def found() -> Any:
        try:
            return engine_class()
        finally:
            for name in [name for name in sys.modules if name.startswith("tensorrt_llm")]:
                del sys.modules[name]

    assert found() == 1
    (package / "_tensorrt_engine.py").write_text("import library_that_is_missing")
    with pytest.raises(ModuleNotFoundError, match="library_that_is_missing"):
        found()
    (package / "_tensorrt_engine.py").unlink()
    assert found() == 2
