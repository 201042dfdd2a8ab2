"""Streaming of partial answers, and classes named by text."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from ts.protocol.codec import create_predict_response
from ts.protocol.stream import Stream

__all__ = ["create_predict_response", "import_class", "send_intermediate_predict_response"]


def send_intermediate_predict_response(
    ret: Any, req_id_map: Mapping[int, str], message: str, code: int, context: Any
) -> None:
    """Send `ret[i]` now as a piece of the answer to the request `req_id_map[i]`; `handle` returns the last piece.

    `ret` is indexed by the keys of `req_id_map`, normally `context.request_ids`. `code` is the status unless the
    context holds another; `message` goes nowhere. Ranks other than 0 send nothing.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    if isinstance(context.cl_socket, Stream):
        context.cl_socket.send(ret, req_id_map, code, context)
    else:  # a plain socket of a `Service`, or its double in a test
        context.cl_socket.sendall(create_predict_response(ret, req_id_map, message, code, context, True))


def import_class(class_name: str, module_prefix: str | None = None) -> type[Any]:
    """The class `package.module.Name`, or `Name` in the module `module_prefix`. Raises `ImportError`."""
    if not class_name:
        raise ImportError("class name is not defined")
    module_name, _, name = class_name.rpartition(".")
    module_name = ".".join(part for part in (module_prefix, module_name) if part)
    if not module_name:
        raise ImportError("module name is not defined.")
    found = getattr(importlib.import_module(module_name), name, None)
    if found is None:
        raise ImportError(f"class:{name} not found in module:{module_name}.")
    cls: type[Any] = found
    return cls
