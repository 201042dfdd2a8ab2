"""Helpers of large models, on doubles of the libraries that they drive."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from queue import Empty
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from ts.context import Context
from ts.handler_utils.distributed.deepspeed import create_checkpoints_json, get_ds_engine
from ts.handler_utils.distributed.pt_pippy import get_pipeline_driver
from ts.handler_utils.hf_batch_streamer import TextIteratorStreamerBatch
from ts.handler_utils.preprocess.dali import get_dali_pipeline
from ts.torch_handler.distributed.base_deepspeed_handler import BaseDeepSpeedHandler


def context(folder: Path, **config: Any) -> Context:
    return Context("m", str(folder), None, 1, None, "0", model_yaml_config=config)


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def test_deepspeed_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "deepspeed", init_inference=lambda model, **arguments: (model, arguments))
    (tmp_path / "ds.json").write_text("{}")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "part.bin").touch()
    (tmp_path / "weights" / "notes.txt").touch()
    handler = {"model_path": str(tmp_path / "weights")}
    section = {"config": "ds.json", "checkpoint": "list.json"}
    model, arguments = get_ds_engine("model", context(tmp_path, handler=handler, deepspeed=section))
    assert model == "model"
    assert arguments == {"config": str(tmp_path / "ds.json"), "checkpoint": str(tmp_path / "list.json")}
    expected = {"type": "ds_model", "checkpoints": [str(tmp_path / "weights" / "part.bin")], "version": 1.0}
    assert json.loads((tmp_path / "list.json").read_text()) == expected


def test_deepspeed_without_configuration(tmp_path: Path) -> None:
    handler = {"model_path": "x"}
    with pytest.raises(ValueError, match="m has no deepspeed config in model config yaml file"):
        get_ds_engine("model", context(tmp_path, handler=handler))
    with pytest.raises(ValueError, match=r"m has no deepspeed config file .*gone\.json"):
        get_ds_engine("model", context(tmp_path, handler=handler, deepspeed={"config": "gone.json"}))


def test_lists_of_checkpoints_reach_down(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/b/2.pt", "a/1.bin"):
        (tmp_path / name).touch()
    create_checkpoints_json(tmp_path / "a", tmp_path / "list.json")
    found = json.loads((tmp_path / "list.json").read_text())["checkpoints"]
    assert found == [str(tmp_path / "a/1.bin"), str(tmp_path / "a/b/2.pt")]


@pytest.mark.parametrize(("rank", "device"), [(None, 0), ("3", 3)])
def test_deepspeed_handlers(monkeypatch: pytest.MonkeyPatch, rank: str | None, device: int) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank:
        monkeypatch.setenv("LOCAL_RANK", rank)
    handler = BaseDeepSpeedHandler()
    handler.initialize(None)
    assert handler.device == device


JOIN = """
from torch.distributed import rpc
from ts.context import Context
from ts.torch_handler.distributed.base_pippy_handler import BasePippyHandler

handler = BasePippyHandler()
config = {"pippy": {"rpc_timeout": 30, "num_worker_threads": 4}}
handler.initialize(Context("m", ".", None, 1, None, "0", model_yaml_config=config))
print(handler.local_rank, handler.world_size, handler.device, rpc.get_worker_info().name)
rpc.shutdown()
"""


def test_pippy_handlers_join_the_group() -> None:
    rank = {"LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    environment = {**os.environ, **rank, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", JOIN], capture_output=True, text=True, env=environment)
    assert done.stdout == "0 1 0 worker0\n", done.stderr


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 4, bias=False)
        self.config = SimpleNamespace(use_cache=True)

    def forward(self, input_ids: Any, mask: Any = "no mask") -> Any:
        return self.layer(input_ids)


def test_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: dict[str, Any] = {}

    def all_compile(model: Any, **arguments: Any) -> str:
        compiled.update(arguments)
        return "driver"

    install(monkeypatch, "pippy", all_compile=all_compile, split_on_size_threshold=lambda size: f"stages of {size}")
    install(monkeypatch, "pippy.hf", PiPPyHFTracer=lambda: "tracer")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "index.json").touch()
    model = Model()
    section = {"input_names": ["input_ids"], "model_type": "HF", "chunks": 2}
    handler = {"model_path": "weights", "index_filename": "index.json"}
    assert get_pipeline_driver(model, 5, context(tmp_path, pippy=section, handler=handler)) == "driver"
    assert (compiled["num_ranks"], compiled["num_chunks"], compiled["tracer"]) == (5, 2, "tracer")
    assert compiled["concrete_args"] == {"mask": "no mask"}
    assert compiled["split_policy"] == "stages of 3"
    assert compiled["index_filename"] == str(tmp_path / "weights" / "index.json")
    assert model.config.use_cache is False


@pytest.mark.parametrize("missing", ["input_names", "model_type", "model_path"])
def test_pipelines_without_configuration(tmp_path: Path, missing: str) -> None:
    section = {name: "x" for name in ("input_names", "model_type") if name != missing}
    handler = {} if missing == "model_path" else {"model_path": "x"}
    with pytest.raises(AssertionError, match=f"Missing '{missing}' key in YAML config"):
        get_pipeline_driver(Model(), 1, context(tmp_path, pippy=section, handler=handler))


def test_pipelines_without_index(tmp_path: Path) -> None:
    section = {"input_names": [], "model_type": "other"}
    handler = {"model_path": "weights", "index_filename": "gone.json"}
    with pytest.raises(AssertionError, match=r"Index file '.*gone\.json' not found"):
        get_pipeline_driver(Model(), 1, context(tmp_path, pippy=section, handler=handler))


def test_dali_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipeline:
        @staticmethod
        def deserialize(**arguments: Any) -> dict[str, Any]:
            return arguments

    install(monkeypatch, "nvidia.dali.pipeline", Pipeline=Pipeline)
    section = {"batch_size": 4, "num_threads": 2, "device_id": 0, "seed": 1, "pipeline_file": "p.dali"}
    with pytest.raises(ValueError, match="m has no dali config in model config yaml file"):
        get_dali_pipeline(context(tmp_path))
    with pytest.raises(RuntimeError, match=r"Missing dali pipeline file\."):
        get_dali_pipeline(context(tmp_path, dali=section))
    (tmp_path / "p.dali").touch()
    numbers = {"batch_size": 4, "num_threads": 2, "device_id": 0, "seed": 1}
    assert get_dali_pipeline(context(tmp_path, dali=section)) == {"filename": str(tmp_path / "p.dali"), **numbers}


class Words:
    """A tokenizer whose tokens are numbers of words; 0 ends a text."""

    eos_token_id = 0
    words = ("", "one ", "two ", "th", "ree ", "line\n", "\u4e2d")

    def decode(self, tokens: list[int], mark: str = "") -> str:
        return "".join(self.words[token] for token in tokens) + mark


def texts(streamer: TextIteratorStreamerBatch) -> list[list[str]]:
    return [[piece["text"] for piece in step] for step in streamer]


def test_text_of_a_batch() -> None:
    streamer = TextIteratorStreamerBatch(Words(), 2)
    for step in ([1, 3], [3, 4], [4, 5], [6, 1]):
        streamer.put(torch.tensor(step))
    streamer.end()
    assert texts(streamer) == [["one ", ""], ["", "three "], ["three ", "line\n"], ["\u4e2d", "one "], ["", ""]]


def test_a_batch_ends_with_its_first_member() -> None:
    streamer = TextIteratorStreamerBatch(Words(), 2)
    streamer.put(torch.tensor([1, 3]))
    streamer.put(torch.tensor([0, 4]))
    streamer.put(torch.tensor([2, 2]))
    streamer.end()
    assert texts(streamer) == [["one ", ""], ["", "three "]]


def test_prompts_can_be_skipped() -> None:
    streamer = TextIteratorStreamerBatch(Words(), 1, skip_prompt=True)
    streamer.put(torch.tensor([[1, 1, 1]]))
    streamer.put(torch.tensor([2]))
    streamer.end()
    assert texts(streamer) == [["two "], [""]]


def test_arguments_of_a_streamer() -> None:
    streamer = TextIteratorStreamerBatch(Words(), 2, timeout=0.01, mark=" .")
    with pytest.raises(ValueError, match="batch size 2"):
        streamer.put(torch.tensor([1, 2, 3]))
    with pytest.raises(Empty):
        next(streamer)
    streamer.put(torch.tensor([1, 2]))
    assert next(streamer) == [{"text": "one  "}, {"text": "two  "}]
