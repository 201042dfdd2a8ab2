"""The handlers of language models, on doubles of the libraries that they drive."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ts.context import Context, RequestProcessor
from ts.metrics.metrics_store import MetricsStore
from ts.torch_handler.trt_llm_handler import TRTLLMHandler
from ts.torch_handler.vllm_handler import VLLMHandler
from ts.utils.util import PredictionException


class Kept:
    """The other end of a plain socket."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)


class LLMContext(Context):
    """A context whose client may leave."""

    gone = False

    @property
    def cancelled(self) -> list[bool]:
        return [self.gone]


def context(folder: Path, section: dict[str, Any], path: str = "") -> LLMContext:
    metrics: Any = MetricsStore({0: "a"}, "m")
    made = LLMContext("m", str(folder), {}, 1, None, "0", metrics=metrics, model_yaml_config={"handler": section})
    made.request_ids, made.request_processor = {0: "a"}, [RequestProcessor({"url_path": path})]
    made.cl_socket = Kept()
    return made


class FakeEngine:
    vllm_config = model_config = None

    @classmethod
    def from_engine_args(cls, arguments: Any) -> FakeEngine:
        return cls()

    async def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)


class FakeApp:
    """Answers as vLLM's application does, with what it was asked."""

    def __init__(self, arguments: Any) -> None:
        self.state = SimpleNamespace()
        self.arguments = arguments
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(f"{scope['method']} {scope['path']}")
        assert self.state.ready
        body = (await receive())["body"]
        asked = json.loads(body) if body else {}
        if asked.get("wait"):
            self.seen.append((await receive())["type"])
            return
        stream = bool(asked.get("stream"))
        kind = b"text/event-stream; charset=utf-8" if stream else b"application/json"
        status = 400 if "bad" in asked else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"Content-Type", kind)]})
        events = (
            [b"data: {1}\n\n", b"data: {2}\n\n", b"data: [DONE]\n\n"] if stream else [b'{"asked": %s}' % (body or b"0")]
        )
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_arg_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        for flag in ("--model", "--served-model-name", "--chat-template", "--max-model-len"):
            parser.add_argument(flag)
        parser.add_argument("--lora-modules", nargs="*")
        return parser

    async def init_app_state(engine_client: Any, state: Any, args: Any, supported_tasks: Any) -> None:
        state.ready = (isinstance(engine_client, FakeEngine), supported_tasks) == (True, ("generate",))

    install(monkeypatch, "vllm", AsyncLLMEngine=FakeEngine, AsyncEngineArgs=SimpleNamespace(from_cli_args=vars))
    install(monkeypatch, "vllm.utils", FlexibleArgumentParser=argparse.ArgumentParser)
    install(monkeypatch, "vllm.entrypoints.openai.cli_args", make_arg_parser=make_arg_parser)
    server: dict[str, Any] = {"build_app": lambda args: FakeApp(args), "init_app_state": init_app_state}
    install(monkeypatch, "vllm.entrypoints.openai.api_server", **server)
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "fork")


def load(folder: Path, section: dict[str, Any]) -> tuple[Any, asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    handler = VLLMHandler()
    handler.initialize(context(folder, section))
    return handler, loop


def ask(folder: Path, path: str, body: Any, gone: bool = False) -> tuple[Any, LLMContext, list[bytes]]:
    handler, loop = load(folder, {"model_path": "some/model"})
    given = context(folder, {}, path)
    given.gone = gone
    row = {} if body is None else {"body": body}
    try:
        answer = loop.run_until_complete(handler.handle([row], given))
    finally:
        loop.close()
        asyncio.set_event_loop(None)
    assert [metric.name for metric in given.metrics.store] == ["HandlerTime"]
    return handler, given, answer


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("body", [{"prompt": "x"}, bytearray(b'{"prompt": "x"}'), '{"prompt": "x"}'])
def test_an_answer(tmp_path: Path, body: Any) -> None:
    handler, given, answer = ask(tmp_path, "v1/chat/completions", body)
    assert answer == [b'{"asked": {"prompt": "x"}}']
    assert handler.app.seen == ["POST /v1/chat/completions"]
    assert given.get_response_status(0)[0] == 200
    assert given.get_response_content_type(0) == "application/json"
    assert given.cl_socket.sent == []


@pytest.mark.usefixtures("vllm")
def test_models_and_errors(tmp_path: Path) -> None:
    handler, _, answer = ask(tmp_path, "v1/models", None)
    assert (handler.app.seen, answer) == (["GET /v1/models"], [b'{"asked": 0}'])
    _, given, _ = ask(tmp_path, "v1/completions", {"bad": 1})
    assert given.get_response_status(0)[0] == 400
    with pytest.raises(PredictionException, match="Unknown API endpoint: v1/other") as raised:
        ask(tmp_path, "v1/other", {})
    assert raised.value.error_code == 404


@pytest.mark.usefixtures("vllm")
def test_a_stream_is_one_piece_for_an_event(tmp_path: Path) -> None:
    _, given, answer = ask(tmp_path, "v1/completions", {"stream": True})
    assert answer == [b"data: [DONE]\n\n"]
    assert [b"data: {1}\n\n" in sent for sent in given.cl_socket.sent] == [True, False]
    assert b"data: {2}\n\n" in given.cl_socket.sent[1]
    assert given.get_response_content_type(0) == "text/event-stream; charset=utf-8"


@pytest.mark.usefixtures("vllm")
def test_the_application_is_told_that_the_client_has_gone(tmp_path: Path) -> None:
    handler, _, _ = ask(tmp_path, "v1/completions", {"wait": 1}, gone=True)
    assert handler.app.seen[-1] == "http.disconnect"


@pytest.mark.usefixtures("vllm")
def test_arguments(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "chat.txt").touch()
    engine = {"max_model_len": 250, "no_such_argument": 1}
    section = {
        "model_path": "weights",
        "vllm_engine_config": engine,
        "adapters": {"a": "hub/lora"},
        "chat_template": "chat.txt",
    }
    handler, loop = load(tmp_path, section)
    loop.close()
    asyncio.set_event_loop(None)
    found = vars(handler.app.arguments)
    assert found["model"] == str(tmp_path / "weights")
    assert found["served_model_name"] == ["weights"]
    assert found["lora_modules"] == ["a=hub/lora"]
    assert found["chat_template"] == str(tmp_path / "chat.txt")
    assert found["max_model_len"] == 250
    assert "no_such_argument" not in found


@pytest.mark.usefixtures("vllm")
def test_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="please define model in vllm_engine_config or model_path in handler"):
        VLLMHandler().initialize(context(tmp_path, {"vllm_engine_config": {"model": ""}}))


class FakeOutput:
    """Awaited, the whole text; iterated, a token at a time."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _step(self, text: str) -> Any:
        return SimpleNamespace(outputs=[SimpleNamespace(text=text, text_diff=text)])

    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()
        return self._step(self._text)

    async def __aiter__(self) -> AsyncIterator[Any]:
        for token in self._text.split():
            yield self._step(token)


class FakeLLM:
    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments

    def generate_async(self, prompt: str, sampling: dict[str, Any], streaming: bool) -> FakeOutput:
        self.sampling = sampling
        return FakeOutput(f"{prompt} again")


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = SimpleNamespace(eos_token_id=7, pad_token_id=None)
    loader = SimpleNamespace(from_pretrained=lambda path: tokenizer)
    install(monkeypatch, "transformers", AutoTokenizer=loader)
    install(monkeypatch, "tensorrt_llm.llmapi", LLM=FakeLLM, KvCacheConfig=dict, SamplingParams=dict)


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.parametrize("encode", [lambda body: body, lambda body: json.dumps(body).encode()])
def test_tensorrt(tmp_path: Path, encode: Any) -> None:
    (tmp_path / "engine").mkdir()
    section = {"engine_dir": "engine", "tokenizer_dir": "hub/tokenizer", "kv_cache_config": {"max_tokens": 9}}
    handler = TRTLLMHandler()
    given = context(tmp_path, section)
    handler.initialize(given)
    assert handler.model.arguments == {
        "model": str(tmp_path / "engine"),
        "tokenizer": "hub/tokenizer",
        "kv_cache_config": {"max_tokens": 9},
    }
    body = encode({"prompt": "hello", "temperature": 0.5})
    assert asyncio.run(handler.handle([{"body": body}], given)) == ["hello again"]
    assert handler.model.sampling == {"end_id": 7, "pad_id": 7, "temperature": 0.5}
    streamed = encode({"prompt": "hello", "streaming": True})
    assert asyncio.run(handler.handle([{"data": streamed}], given)) == [""]
    assert [b'{"text": "hello"}' in sent for sent in given.cl_socket.sent] == [True, False]
    assert b'{"text": "again"}' in given.cl_socket.sent[1]
