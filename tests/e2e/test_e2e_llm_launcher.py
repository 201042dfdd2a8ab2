"""`python -m ts.llm_launcher`: from its start to the end of its server, over doubles of the engines."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from harness.archives import NOOP
from harness.server import ServerProcess, eventually
from ts.llm_launcher import MARK

VLLM = {
    "__init__.py": """
class AsyncEngineArgs:
    @staticmethod
    def from_cli_args(arguments):
        return vars(arguments)


class AsyncLLMEngine:
    @classmethod
    def from_engine_args(cls, arguments):
        engine = cls()
        engine.arguments = arguments
        return engine
""",
    "utils.py": "from argparse import ArgumentParser as FlexibleArgumentParser",
    "entrypoints/__init__.py": "",
    "entrypoints/openai/__init__.py": "",
    "entrypoints/openai/cli_args.py": """
def make_arg_parser(parser):
    for flag in ("model", "served-model-name", "max-num-seqs", "max-model-len", "download-dir", "tensor-parallel-size"):
        parser.add_argument(f"--{flag}")
    return parser
""",
    "entrypoints/openai/api_server.py": """
import json
from types import SimpleNamespace


class App:
    state = SimpleNamespace()

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(self.state.engine.arguments).encode()})


def build_app(args):
    return App()


async def init_app_state(engine_client, state):
    state.engine = engine_client
""",
}
TENSORRT = {
    "tensorrt_llm/__init__.py": "",
    "tensorrt_llm/llmapi.py": """
import json
from pathlib import Path

BuildConfig = KvCacheConfig = SamplingParams = dict


class LLM:
    def __init__(self, model, **arguments):
        self.model, self.arguments = model, arguments

    def save(self, folder):
        Path(folder).mkdir()
        Path(folder, "rank0.engine").write_text(json.dumps([self.model, self.arguments]))

    async def generate_async(self, prompt, sampling, streaming):
        said = [prompt, Path(self.model, "rank0.engine").read_text(), self.arguments["kv_cache_config"]]
        return type("Output", (), {"outputs": [type("Step", (), {"text": json.dumps(said)})]})
""",
    "transformers.py": """
class AutoTokenizer:
    eos_token_id = pad_token_id = 7
    from_pretrained = classmethod(lambda cls, folder: cls)
""",
}


class Launcher(ServerProcess):
    """The command in place of the server's, with its own flags; the engines' doubles are on the path of Python."""

    def __init__(self, directory: Path, flags: Sequence[str], *, config: dict[str, str] | None = None) -> None:
        packages = directory / "packages"
        for folder, files in (("vllm/", VLLM), ("", TENSORRT)):
            for name, text in files.items():
                path = packages / f"{folder}{name}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        super().__init__(directory, config=config, environment={"PYTHONPATH": str(packages)})
        self.command = [sys.executable, "-m", "ts.llm_launcher", "--model_store", "store", *flags]

    @property
    def folder(self) -> Path:
        """The model directory."""
        return self.store / "llama"

    def ask(self, path: str, key: str = "") -> httpx.Response:
        """A prompt, once the model has loaded."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}

        def answer() -> httpx.Response | None:
            given = self.request("POST", f"/predictions/llama{path}", json={"prompt": "hi"}, headers=headers)
            return given if given.status_code != 503 else None

        given = eventually(answer)
        assert given is not None
        return given


@pytest.mark.check("generative", 30)
def test_a_model_from_start_to_ctrl_c(tmp_path: Path) -> None:
    """On vLLM; then on TensorRT-LLM: this start stops the first server, whose command removes its model and ends."""
    (tmp_path / "weights").mkdir()
    flags = ["--disable_token_auth", "--vllm_engine.max_num_seqs", "3", "--vllm_engine.download_dir", "hub"]
    first = Launcher(tmp_path, ["--model_name", "llama", "--model_id", "org/llama", *flags])
    flags = ["--engine", "trt_llm", "--trt_llm_engine.kv_cache_free_gpu_memory_fraction", "0.5"]
    second = Launcher(tmp_path, ["--model_name", "llama", "--model_id", "weights", *flags])
    with first:
        answer = first.ask("/1.0/v1/completions")
        assert answer.status_code == 200, answer.text
        told = {"model": "org/llama", "max_num_seqs": 3, "max_model_len": None, "tensor_parallel_size": 1}
        told["download_dir"] = str(tmp_path / "hub")
        assert {name: answer.json()[name] for name in told} == told
        with second:
            assert first.wait() == 0, first.output
            assert second.request("POST", "/predictions/llama").status_code == 400, "needs a key"
            key = json.loads((tmp_path / "key_file.json").read_text())["inference"]["key"]
            prompt, engine, cache = second.ask("", key).json()
            built = [str(tmp_path / "weights"), {"dtype": "bfloat16", "build_config": {"max_batch_size": 4}}]
            assert (prompt, json.loads(engine), cache) == ("hi", built, {"free_gpu_memory_fraction": 0.5})
            assert second.stop(signal.SIGINT) == 0
    assert (second.folder / "engine" / "rank0.engine").exists()


def test_a_directory_that_a_killed_command_has_left(tmp_path: Path) -> None:
    """It is written anew, and removed at the end."""
    running = Launcher(tmp_path, ["--model_name", "llama"])
    (tmp_path / "packages" / "torch.py").write_text("class cuda:\n    device_count = staticmethod(lambda: 2)\n")
    running.folder.mkdir()
    config = running.folder / "model-config.yaml"
    config.write_text(MARK)
    with running:
        assert "parallelLevel: 2\n" in config.read_text()
        assert running.stop(signal.SIGTERM) == 0
    assert not running.folder.exists()


def test_a_directory_of_somebody_else_is_served_as_it_is(tmp_path: Path) -> None:
    """And stays when the server has been stopped from elsewhere."""
    running = Launcher(tmp_path, ["--model_name", "llama", "--disable_token_auth"])
    (running.folder / "MAR-INF").mkdir(parents=True)
    model = {"modelName": "llama", "handler": "own.py", "modelVersion": "1.0"}
    (running.folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"runtime": "python", "model": model}))
    (running.folder / "own.py").write_text(NOOP)
    with running:
        assert running.ask("").text == "ok"
        assert "llama was not made by this command: it is served as it is" in running.output
        assert running.launch("--stop").returncode == 0
        assert running.wait() == 0
    assert (running.folder / "own.py").exists()


def test_a_server_that_cannot_start(tmp_path: Path) -> None:
    running = Launcher(tmp_path, ["--model_name", "llama"], config={"inference_address": "nowhere"})
    (tmp_path / "packages" / "torch.py").write_text("class cuda:\n    device_count = staticmethod(lambda: 2)\n")
    running.start(wait=False)
    assert running.wait() == 1, running.output
    assert "inference_address" in running.output
    assert not running.folder.exists()


def test_torch_that_cannot_count_the_gpus(tmp_path: Path) -> None:
    running = Launcher(tmp_path, ["--model_name", "llama"])
    (tmp_path / "packages" / "torch.py").write_text("import libcudart")
    running.start(wait=False)
    assert running.wait() == 1, running.output
    assert "ts.llm_launcher: torch cannot count the GPUs: ModuleNotFoundError: No module named" in running.output
    assert not running.folder.exists()


@pytest.mark.parametrize("name", ["../up", "a/b", ""])
def test_a_name_that_no_model_can_have(tmp_path: Path, name: str) -> None:
    running = Launcher(tmp_path, ["--model_name", name])
    running.start(wait=False)
    assert running.wait() == 1, running.output
    assert "ts.llm_launcher: Model name contains special characters" in running.output
    assert list(running.store.iterdir()) == []
