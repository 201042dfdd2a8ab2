"""The dump of settings that the server logs when it starts; support scripts search it by label."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from modelserver.settings.table import Settings

_ABSENT: Final = "N/A"


def banner(settings: Settings, gpus: int, cpus: int, memory_mb: int, version: str) -> str:
    """The message, which begins with a newline; `gpus` is the number in use."""
    return "".join(f"\n{label}: {value}" for label, value in _lines(settings, gpus, cpus, memory_mb, version))


def _lines(settings: Settings, gpus: int, cpus: int, memory_mb: int, version: str) -> list[tuple[str, object]]:
    return [
        ("Torchserve version", version),
        ("TS Home", _canonical(settings.home)),
        ("Current directory", Path.cwd()),
        ("Temp directory", settings.temp_dir),
        ("Metrics config path", _canonical(settings.metrics_config)),
        ("Number of GPUs", gpus),
        ("Number of CPUs", cpus),
        ("Max heap size", f"{memory_mb} M"),
        ("Python executable", settings.python),
        ("Config file", settings.config_file or _ABSENT),
        ("Inference address", settings.inference_address),
        ("Management address", settings.management_address),
        ("Metrics address", settings.metrics_address),
        ("Model Store", _canonical(settings.model_store)),
        ("Initial Models", settings.load_models or _ABSENT),
        ("Log dir", _canonical(settings.snapshot_location)),
        ("Metrics dir", _canonical(settings.reported_metrics_location)),
        ("Netty threads", settings.number_of_netty_threads),
        ("Netty client threads", settings.netty_client_threads),
        ("Default workers per model", settings.default_workers_per_model or gpus or cpus),
        ("Blacklist Regex", settings.blacklist_env_vars.pattern if settings.blacklist_env_vars else _ABSENT),
        ("Maximum Response Size", settings.max_response_size),
        ("Maximum Request Size", settings.max_request_size),
        ("Limit Maximum Image Pixels", _raw(settings, "limit_max_image_pixels")),
        ("Prefer direct buffer", _raw(settings, "prefer_direct_buffer")),
        ("Allowed Urls", _allowed_urls(settings)),
        ("Custom python dependency for model allowed", _raw(settings, "install_py_dep_per_model")),
        ("Enable metrics API", _raw(settings, "enable_metrics_api")),
        ("Metrics mode", settings.metrics_mode),
        ("Disable system metrics", _word(settings.disable_system_metrics)),
        ("Workflow Store", _canonical(settings.workflow_store or settings.model_store)),
        ("CPP log config", settings.cpp_log_config or _ABSENT),
        ("Model config", settings.properties.get("models") or _ABSENT),
        ("System metrics command", settings.system_metrics_cmd or "default"),
        ("Model API enabled", _word(settings.enable_model_api)),
    ]


def _canonical(path: Path | None) -> str:
    return _ABSENT if path is None else str(path.resolve())


def _word(value: object) -> str:
    return str(value).lower()


def _raw(settings: Settings, key: str) -> str:
    """The text of a boolean as it was given."""
    return settings.properties.get(key) or _word(getattr(settings, key))


def _allowed_urls(settings: Settings) -> str:
    """The elements of the list with their blanks."""
    text = settings.properties.get("allowed_urls")
    elements = [pattern.pattern for pattern in settings.allowed_urls] if text is None else text.split(",")
    return f"[{', '.join(elements)}]"
