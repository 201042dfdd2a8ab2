"""Where the code of a handler stands, for log lines about what it returned."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ts

# What decides about the result, from the last step to the first.
_STEPS = ("handle", "postprocess", "inference", "preprocess")
_BUILT_IN = str(Path(ts.__file__).parent)


def place_of(handle: Any) -> str:
    """`File "h.py", line 3, in handle` of the user's code behind an entry point, "" if all of it is built in."""
    for function in _functions(handle):
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is not None and not code.co_filename.startswith(_BUILT_IN):
            return f'File "{code.co_filename}", line {code.co_firstlineno}, in {code.co_qualname}'
    return ""


def _functions(handle: Any) -> Iterator[Any]:
    """The entry point, then the steps of its handler."""
    if not hasattr(handle, "__self__") and hasattr(handle, "__wrapped__"):
        yield from _functions(handle.__wrapped__)
    owner = getattr(handle, "__self__", handle)
    for wrapped in ("_handle_fn", "handler"):  # an envelope's, a pipeline's
        inner = getattr(owner, wrapped, None)
        if inner is not None:
            yield from _functions(inner)
    yield handle
    yield from (step for name in _STEPS if (step := getattr(type(owner), name, None)) is not None)
