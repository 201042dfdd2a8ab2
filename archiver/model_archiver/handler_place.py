"""Where the code of a handler lies: in the archive, in a server, or in an installed package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Final

from model_archiver.content import Content
from model_archiver.handler_file import BUILT_IN_HANDLERS

# Those that can be named in a manifest too, though the archiver wants a file for them.
SERVER_HANDLERS: Final = frozenset(BUILT_IN_HANDLERS) | {
    "dali_handler",
    "densenet_handler",
    "text_handler",
    "vision_handler",
}

_BINARY: Final = (".so", ".pyc", ".pyd")


def split_handler(handler: str) -> tuple[str, str, str]:
    """Folder, module and function of `folder/module.py:function`, each "" where it is not given."""
    file, _, function = handler.partition(":")
    folder, _, module = file.removesuffix(".py").rpartition("/")
    return folder, module, function


def source_file(content: Content, handler: str) -> str | None:
    """The place of the handler's source, "" if it has none (compiled, or of the server); None if nothing is found."""
    folder, module, function = split_handler(handler)
    for place in _candidates(folder if function else "", module):
        if place in content:
            return place
    stem = module.replace(".", "/")
    if any(file.place.startswith(f"{stem}.") and file.place.endswith(_BINARY) for file in content.files):
        return ""
    return "" if handler in SERVER_HANDLERS or _is_installed(module) else None


def _candidates(folder: str, module: str) -> Iterator[str]:
    path = module.replace(".", "/")
    for root in ("", f"{folder}/" if folder else ""):
        yield from (f"{root}{path}/__init__.py", f"{root}{path}.py")


def _is_installed(module: str) -> bool:
    """Whether the package can be imported here; it is not."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False
