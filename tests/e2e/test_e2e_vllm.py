"""The vLLM handler in an asynchronous worker, over doubles of vLLM with an engine on the worker's event loop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from harness.archives import pack
from harness.server import ServerProcess

PATIENCE = 60.0
CONFIG = "asyncCommunication: true\nhandler:\n  model_path: some/model\n"

# The engine makes a token for each prompt at every step, but begins only when it has three of them.
DOUBLES = """
import argparse
import asyncio
import json
import sys
from types import ModuleType, SimpleNamespace


class Engine:
    vllm_config = model_config = None

    @classmethod
    def from_engine_args(cls, arguments):
        engine = cls()
        engine.prompts = []
        engine.steps = asyncio.get_running_loop().create_task(engine.run())
        return engine

    async def run(self):
        while len(self.prompts) < 3:
            await asyncio.sleep(0.001)
        for number in range(3):
            for prompt, tokens in self.prompts:
                tokens.put_nowait(f"{prompt}{number}")
            await asyncio.sleep(0)
        for _, tokens in self.prompts:
            tokens.put_nowait(None)

    def generate(self, prompt):
        tokens = asyncio.Queue()
        self.prompts.append((prompt, tokens))
        return tokens


class App:
    def __init__(self):
        self.state = SimpleNamespace()

    async def __call__(self, scope, receive, send):
        asked = json.loads((await receive())["body"])
        tokens = self.state.engine.generate(asked["prompt"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        said = []
        while (token := await tokens.get()) is not None:
            said.append(token)
            if asked.get("stream"):
                await send({"type": "http.response.body", "body": f"data: {token}\\n\\n".encode(), "more_body": True})
        last = b"data: [DONE]\\n\\n" if asked.get("stream") else " ".join(said).encode()
        await send({"type": "http.response.body", "body": last})


def install(name, **members):
    sys.modules[name] = ModuleType(name)
    vars(sys.modules[name]).update(members)


def make_arg_parser(parser):
    for flag in ("--model", "--served-model-name", "--chat-template"):
        parser.add_argument(flag)
    return parser


async def init_app_state(engine_client, state):
    state.engine = engine_client


install("vllm", AsyncLLMEngine=Engine, AsyncEngineArgs=SimpleNamespace(from_cli_args=vars))
install("vllm.utils", FlexibleArgumentParser=argparse.ArgumentParser)
install("vllm.entrypoints.openai.cli_args", make_arg_parser=make_arg_parser)
install("vllm.entrypoints.openai.api_server", build_app=lambda args: App(), init_app_state=init_app_state)
"""
HANDLER = """
import doubles
from ts.torch_handler.vllm_handler import VLLMHandler


class Handler(VLLMHandler):
    pass
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("vllm"), torch=True) as running:
        pack(running.store, "llm", HANDLER, config=CONFIG, files={"doubles.py": DOUBLES})
        assert running.register("llm.mar").status_code == 200
        yield running


@pytest.mark.check("generative", 26)
def test_three_prompts_are_generated_together(server: ServerProcess) -> None:
    """Two streams and a whole answer, by one worker."""
    url = f"{server.url()}/predictions/llm/1.0/v1/chat/completions"

    def ask(prompt: str, stream: bool) -> str:
        answer = httpx.post(url, json={"prompt": prompt, "stream": stream}, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.text

    with ThreadPoolExecutor(3) as clients:
        answers = list(clients.map(ask, "abc", (True, True, False)))
    assert answers == [
        *("".join(f"data: {prompt}{number}\n\n" for number in range(3)) + "data: [DONE]\n\n" for prompt in "ab"),
        "c0 c1 c2",
    ]


@pytest.mark.check("generative", 26)
@pytest.mark.parametrize("path", ["", "/1.0/v1/nothing"])
def test_a_path_that_the_api_does_not_have(server: ServerProcess, path: str) -> None:
    answer = httpx.post(f"{server.url()}/predictions/llm{path}", json={"prompt": "x"}, timeout=PATIENCE)
    assert answer.status_code == 404
    assert json.loads(answer.content)["message"] == f"Unknown API endpoint: {path.removeprefix('/1.0/')}"
