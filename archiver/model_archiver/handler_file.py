"""Which file a handler argument stands for."""

from __future__ import annotations

import sys
from typing import Final

BUILT_IN_HANDLERS: Final = {
    "base_handler": "anything",
    "text_classifier": "text",
    "image_classifier": "vision",
    "object_detector": "vision",
    "image_segmenter": "vision",
    "dali_image_classifier": "vision",
    "vllm_handler": "text",
    "trt_llm_handler": "text",
}
BUILT_IN_NATIVE_HANDLERS: Final = frozenset({"BaseHandler", "TorchScriptHandler"})


def handler_file(handler: str, runtime: str) -> str | None:
    """The file to pack for a handler argument, None for handlers that come with the server.

    `h`, `h:entry`, `h.py` and `h.py:entry` all mean `h.py`. For the runtime LSP, `h` and `h:entry` name a library.
    """
    if runtime == "LSP":
        return None if handler in BUILT_IN_NATIVE_HANDLERS else _without_entry(handler) + _library_suffix()
    if handler in BUILT_IN_HANDLERS:
        return None
    if _without_entry(handler).endswith(".py"):
        return _without_entry(handler)
    return handler if ".py" in handler else _without_entry(handler) + ".py"


def _without_entry(handler: str) -> str:
    return handler.partition(":")[0]


def _library_suffix() -> str:
    return ".dylib" if sys.platform == "darwin" else ".so"
