"""Whether a worker can be forked from the nursery or needs a fresh interpreter."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from modelserver.wire.control import Spawn
from modelserver.worker.kernel import CAN_FORK


def why_exec(order: Spawn, *, modules: Collection[str], search_path: Collection[str], threads: int) -> str:
    """Why this worker cannot be forked, "" if it can.

    `modules` are the names in the nursery's `sys.modules`, `search_path` is its `sys.path`, `threads` how many it has.
    """
    if not CAN_FORK:
        return "this platform has no safe fork"
    if not order.fork:
        return "asked for"
    if order.executable:
        return f"runs on {order.executable}"
    if order.launcher:
        return "started by a launcher"
    if threads > 1:
        return f"the nursery has {threads} threads"
    own_directories = [directory for directory in order.python_path if directory not in search_path]
    if hidden := shadowed(own_directories, modules):
        return f"{hidden} is already imported"
    return ""


def shadowed(directories: Iterable[str], modules: Collection[str], package: str = "") -> str:
    """Path of a module or package in `directories` that an imported module of the same name would hide, "" if none.

    `package` is "", or the name of the package that the directories belong to, with a dot behind it.
    """
    # `modules` is searched as it is: a copy counts a reference to every name, which in the nursery parts the 3 MB where
    # the names lie from what its workers share with it.
    for directory in directories:
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if package + _module_name(entry) in modules:
                return entry.path
            # Packages of several origins share a name such as `google`: what counts is which of their parts are loaded.
            parts = [entry.path] if package + entry.name in modules and entry.is_dir() else []
            if hidden := shadowed(parts, modules, f"{package}{entry.name}."):
                return hidden
    return ""


def _module_name(entry: os.DirEntry[str]) -> str:
    """Name under which a directory entry can be imported, "" if it cannot."""
    if entry.is_dir():
        # A directory without __init__.py never wins against a real module further down the path.
        return entry.name if os.path.exists(os.path.join(entry.path, "__init__.py")) else ""  # noqa: PTH110, PTH118
    name, dot, suffix = entry.name.partition(".")
    return name if dot and suffix.endswith(("py", "pyc", "so")) else ""
