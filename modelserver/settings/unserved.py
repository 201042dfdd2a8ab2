"""Settings that are understood but have no effect in this version: whoever sets one is told."""

from __future__ import annotations

from typing import Final

from modelserver.settings.model_options import ModelOptions
from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings

_KEYS: Final = (
    "log_config",
    "cors_allowed_origin",
    "cors_allowed_methods",
    "cors_allowed_headers",
    "ts_open_inference_protocol",
    "enable_grpc_ssl",
    "enable_grpc_health",
    "enable_grpc_reflection",
    "enable_openmetrics",
    "model_snapshot",
    "install_py_dep_per_model",
    "cpu_launcher_enable",
    "debug",
    "model_metrics_auto_detect",
    "system_metrics_cmd",
    "plugins",
    "plugins_path",
    "cpp_log_config",
)
_FORMATS: Final = {"log_format": "text"}  # key -> the value that is served
_OPTIONS: Final = {
    "use_job_ticket": "useJobTicket",
    "client_timeout_in_mills": "clientTimeoutInMills",
    "parallel_type": "parallelType",
    "continuous_batching": "continuousBatching",
    "sequence_batching": "sequenceBatching",
    "async_communication": "asyncCommunication",
    "use_venv": "useVenv",
}


def unserved_settings(settings: Settings) -> list[Notice]:
    """A warning for every setting that asks for something this version does not do."""
    asked = [key for key in _KEYS if getattr(settings, key)]
    asked += [key for key, served in _FORMATS.items() if getattr(settings, key) != served]
    return [
        Notice("WARN", "util.ConfigManager", f"{key} has no effect in this version ({settings.source(key)})")
        for key in asked
    ]


def unserved_options(model: str, version: str, options: ModelOptions) -> list[Notice]:
    """The same for the configuration of a model."""
    return [
        Notice("WARN", "archive.model.ModelConfig", f"Model {model} {version}: {key} has no effect in this version")
        for field, key in _OPTIONS.items()
        if getattr(options, field)
    ]
