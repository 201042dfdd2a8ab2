"""Settings that are understood but have no effect in this version: whoever sets one is told."""

from __future__ import annotations

from typing import Final

from modelserver.settings.model_options import ModelOptions
from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings

KEYS: Final = (
    "plugins",
    "plugins_path",
    "plugins_disabled",
)
# Key -> the value that is served.
FORMATS: Final = {"snapshot_store": "filesystem", "snapshot_dynamodb_table": "Snapshots"}
STATED: Final = ("workflow_store", "enable_workflow_api")  # have a value that nobody has asked for


def unserved_settings(settings: Settings) -> list[Notice]:
    """A warning for every setting that asks for something this version does not do."""
    asked = [key for key in KEYS if getattr(settings, key)]
    asked += [key for key, served in FORMATS.items() if getattr(settings, key) != served]
    asked += [key for key in STATED if _is_stated(settings, key) and getattr(settings, key)]
    return [_unserved(key, settings.source(key)) for key in asked]


def _is_stated(settings: Settings, key: str) -> bool:
    return settings.source(key) not in ("default", "key model_store")


def _unserved(key: str, source: str) -> Notice:
    return Notice("WARN", "util.ConfigManager", f"{key} has no effect in this version ({source})", source)


def unserved_options(model: str, version: str, options: ModelOptions) -> list[Notice]:
    """The same for the configuration of a model."""
    if not (options.async_communication and options.continuous_batching):
        return []
    text = "continuousBatching has no effect beside asyncCommunication: such handlers have requests join by themselves"
    return [Notice("WARN", "archive.model.ModelConfig", f"Model {model} {version}: {text}")]
