"""Directories and files that a start needs: there, readable, writable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from modelserver.checkup.finding import Finding, error, remark, warning
from modelserver.settings.command_line import CommandLine
from modelserver.settings.table import Settings


def examine_places(settings: Settings, arguments: CommandLine, cwd: Path) -> Iterator[Finding]:
    """All but the archives in the stores."""
    yield from _stores(settings, arguments)
    yield from _named_files(settings, arguments)
    if not (settings.temp_dir.is_dir() and _is_writable(settings.temp_dir)):
        text = f"the temporary directory cannot be written to: {settings.temp_dir}"
        yield error(_source(settings, "temp_dir"), text, "Make it, or name another one by TEMP.")
    for name in ("log_location", "metrics_location"):
        if settings.log_to_files and not _is_writable(getattr(settings, name)):
            text = f"no log files: {getattr(settings, name)} cannot be written to"
            yield warning(_source(settings, name), text, "Name another one by LOG_LOCATION and METRICS_LOCATION.")
    if not (settings.disable_token_authorization or _is_writable(cwd)):
        text = f"key_file.json cannot be written into {cwd}"
        yield error("tokens", text, "Start in a directory of the server's own, or without tokens.")


def _stores(settings: Settings, arguments: CommandLine) -> Iterator[Finding]:
    store = settings.model_store
    if store is None:
        yield error("model_store", "Missing mandatory parameter --model-store", "Name the directory of the archives.")
    elif not store.is_dir():
        text = f"--model-store directory not found: {store}"
        yield error(_source(settings, "model_store"), text, "Correct or make it.")
    elif not os.access(store, os.R_OK | os.X_OK):
        text = f"the model store cannot be read: {store}"
        yield error(_source(settings, "model_store"), text, "Give the server's user the right to.")
    elif not os.access(store, os.W_OK):
        text = f"the model store cannot be written to: no model is registered by URL: {store}"
        yield remark(_source(settings, "model_store"), text)
    workflows = settings.workflow_store
    if workflows is None:
        return
    if workflows.is_dir():
        if archives := sorted(path.name for path in workflows.glob("*.war")):
            text = f"workflows are not served: {', '.join(archives)}"
            yield warning(_source(settings, "workflow_store"), text, "Register their models one by one.")
        return
    text = f"--workflow-store directory not found: {workflows}"
    if arguments.workflow_store is not None:
        yield error(_source(settings, "workflow_store"), text, "Correct or make it.")
    elif workflows != store:
        yield remark(_source(settings, "workflow_store"), text)


def _named_files(settings: Settings, arguments: CommandLine) -> Iterator[Finding]:
    if settings.log_config is not None and not settings.log_config.is_file():
        text = f"--log-config file not found: {settings.log_config}"
        finding = warning if arguments.log_config is None else error
        yield finding(_source(settings, "log_config"), text, "Correct it.")
    if arguments.cpp_log_config is not None and settings.cpp_log_config and not settings.cpp_log_config.is_file():
        text = f"--cpp-log-config file not found: {settings.cpp_log_config}"
        yield error(_source(settings, "cpp_log_config"), text, "Correct it.")


def _is_writable(place: Path) -> bool:
    """Whether a directory can be written into, or made."""
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def _source(settings: Settings, name: str) -> str:
    """Where a value came from; its name where nobody has stated it."""
    source = settings.source(name)
    return name if source == "default" else source
