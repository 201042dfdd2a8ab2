"""Settings that are understood but have no effect in this version: whoever sets one is told."""

from __future__ import annotations

from typing import Final

from modelserver.settings.model_options import ModelOptions
from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings

KEYS: Final = (
    "log_config",
    "ts_open_inference_protocol",
    "enable_openmetrics",
    "model_metrics_auto_detect",
    "system_metrics_cmd",
    "plugins",
    "plugins_path",
    "cpp_log_config",
)
FORMATS: Final = {"log_format": "text", "snapshot_store": "filesystem"}  # key -> the value that is served
OPTIONS: Final = {
    "continuous_batching": "continuousBatching",
    "sequence_batching": "sequenceBatching",
    "async_communication": "asyncCommunication",
}


def unserved_settings(settings: Settings) -> list[Notice]:
    """A warning for every setting that asks for something this version does not do."""
    asked = [key for key in KEYS if getattr(settings, key)]
    asked += [key for key, served in FORMATS.items() if getattr(settings, key) != served]
    return [
        Notice("WARN", "util.ConfigManager", f"{key} has no effect in this version ({settings.source(key)})")
        for key in asked
    ]


def unserved_options(model: str, version: str, options: ModelOptions) -> list[Notice]:
    """The same for the configuration of a model."""
    return [
        Notice("WARN", "archive.model.ModelConfig", f"Model {model} {version}: {key} has no effect in this version")
        for field, key in OPTIONS.items()
        if getattr(options, field)
    ]
