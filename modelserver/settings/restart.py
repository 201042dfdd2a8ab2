"""What a start should say, and forget, when it takes up a saved configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from modelserver.settings.notices import Notice, printable
from modelserver.settings.properties import Given
from modelserver.settings.snapshot_files import Origin, SavedFiles

_OPENED: Final = {
    "disable_token_authorization": "tokens are not checked",
    "enable_model_api": "models may be registered and deleted",
}


def report_choice(saved: SavedFiles, usual: Path) -> list[Notice]:
    """Which saved configuration was taken, in place of which file, and what was passed over."""
    notices = []
    if saved.skipped:
        notices.append(_warning(f"No saved configuration, skipped: {printable(', '.join(saved.skipped))}"))
    if saved.newest is None:
        return notices
    message = f"Starting from the saved configuration {saved.newest}"
    if not usual.is_file():
        return [*notices, Notice("INFO", "util.ConfigManager", message)]
    remedy = "to read it, name it with --ts-config, or start with --no-config-snapshots"
    return [*notices, _warning(f"{message}; {usual} is not read ({remedy})")]


def report_content(given: Mapping[str, Given], file: str, origin: Origin) -> list[Notice]:
    """What the file named `file` makes happen that this start did not ask for."""
    notices = []
    restored, named = given.get("model_snapshot"), given.get("load_models")
    both = restored and restored.text.strip() and named and named.text.strip()
    if both and named and (origin is Origin.USER or not _is_of(named, file)):
        text = f"load_models has no effect: the models of model_snapshot are restored ({named.source})"
        notices.append(_warning(text, named.source))
    if origin is not Origin.USER:
        notices += [
            _warning(f"{key}=true comes from a saved configuration: {effect} ({given[key].source})", given[key].source)
            for key, effect in _OPENED.items()
            if key in given and given[key].text.strip().lower() == "true" and _is_of(given[key], file)
        ]
    return notices


def forget_gpu_count(given: dict[str, Given], file: str, origin: Origin) -> str:
    """Drop a count of 0 GPUs that TorchServe has saved: it is that of a machine, not of a user; returns its source."""
    count = given.get("number_of_gpu")
    if origin is not Origin.TORCHSERVE or count is None or count.text.strip() != "0" or not _is_of(count, file):
        return ""
    return given.pop("number_of_gpu").source


def _is_of(given: Given, file: str) -> bool:
    return given.source.startswith(f"{file}:")


def _warning(message: str, source: str = "") -> Notice:
    return Notice("WARN", "util.ConfigManager", message, source)
