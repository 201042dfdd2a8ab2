"""`TRTLLMHandler`: large language models on TensorRT-LLM."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

from ts.handler_utils.trt_llm_engine import engine_class
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.torch_handler.base_handler import BaseHandler


class TRTLLMHandler(BaseHandler):
    """An asynchronous handler, for one request a call: JSON with `prompt`, `streaming` and sampling parameters."""

    tokenizer: Any = None

    def initialize(self, context: Any) -> None:
        """Load the engine and the tokenizer that the section `handler` of the model's YAML names."""
        library = importlib.import_module("tensorrt_llm.llmapi")
        section = context.model_yaml_config["handler"]
        model_dir = Path(context.system_properties["model_dir"])
        tokenizer_dir = _inside(model_dir, section["tokenizer_dir"])
        self.manifest = context.manifest
        self.tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(tokenizer_dir)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token_id = self.tokenizer.eos_token_id
        self.model = engine_class()(
            model=_inside(model_dir, section["engine_dir"]),
            tokenizer=tokenizer_dir,
            kv_cache_config=library.KvCacheConfig(**(section.get("kv_cache_config") or {})),
        )
        self.initialized = True

    async def handle(self, data: Any, context: Any) -> list[str]:
        """The text of one request; a stream is `{"text": token}` for each token and ends with an empty piece."""
        started = time.perf_counter()
        assert len(data) == 1, "the TensorRT-LLM handler takes one request a call: set batchSize to 1"
        value = data[0].get("data") or data[0].get("body")
        request = dict(json.loads(value) if isinstance(value, str | bytes | bytearray) else value)
        prompt, streaming = request.pop("prompt"), request.pop("streaming", False)
        output = self.model.generate_async(prompt, self._sampling(request), streaming=streaming)
        if streaming:
            async for step in output:
                piece = json.dumps({"text": step.outputs[0].text_diff})
                send_intermediate_predict_response([piece], context.request_ids, "Intermediate", 200, context)
            text = ""
        else:
            text = (await output).outputs[0].text
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return [text]

    def _sampling(self, parameters: dict[str, Any]) -> Any:
        tokens = {"end_id": self.tokenizer.eos_token_id, "pad_id": self.tokenizer.pad_token_id}
        return importlib.import_module("tensorrt_llm.llmapi").SamplingParams(**{**tokens, **parameters})


def _inside(model_dir: Path, path: str) -> str:
    """A path in the model directory if it exists there, else as it is."""
    return str(model_dir / path) if (model_dir / path).exists() else path
