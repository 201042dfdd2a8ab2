"""From command line, environment and the one configuration file to `Settings`.

Precedence of a key, highest first: environment `TS_<KEY>` (where the file allows it), command line, file, default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from modelserver.errors import ConfigurationError
from modelserver.settings.command_line import CommandLine
from modelserver.settings.faults import Fault
from modelserver.settings.jvm import local_path, system_properties
from modelserver.settings.misspelt import unknown_keys, unknown_variables
from modelserver.settings.notices import Notice, printable
from modelserver.settings.properties import Given, read_properties
from modelserver.settings.restart import forget_gpu_count, report_choice, report_content
from modelserver.settings.rows import Row
from modelserver.settings.snapshot_files import (
    FOLDER,
    Origin,
    SavedFiles,
    find_saved,
    forget_derived_store,
    read_origin,
)
from modelserver.settings.table import FIXED_KEYS, Settings, rows
from modelserver.settings.validation import faults
from modelserver.settings.values import Tolerated

_USUAL: Final = "config.properties"
_LOG_CONFIGS: Final = ("log4j.configurationFile", "log4j2.configurationFile")  # log4j2 looks for both, in this order
_LOGS: Final = "logs"
_OPEN_URLS_WARNING: Final = (
    "Your torchserve instance can access any URL to load models. "
    "When deploying to production, make sure to limit the set of allowed_urls in config.properties"
)


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The one file that is read."""

    name: str  # as given
    path: Path
    origin: Origin

    @classmethod
    def at(cls, name: str, path: Path) -> ConfigFile:
        """Looks into the file for its origin."""
        return cls(name, path, read_origin(path))


@dataclass(slots=True)
class _Reading:
    """Values, sources and notices as they come together."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def put(self, name: str, value: object, source: str) -> None:
        self.values[name] = value
        self.sources[name] = source


def load(arguments: CommandLine, environ: Mapping[str, str], cwd: Path) -> Settings:
    """Every effective setting, checked. Raises ConfigurationError, whose text names key and source."""
    settings, refused = examine(arguments, environ, cwd)
    if refused:
        raise refused[0].error()
    return settings


def examine(arguments: CommandLine, environ: Mapping[str, str], cwd: Path) -> tuple[Settings, list[Fault]]:
    """The same with everything that stops the start; keys that cannot be read have their defaults then.

    Raises ConfigurationError where the file as a whole cannot be read.
    """
    file = choose_file(arguments, environ, cwd)
    given = effective(arguments, environ, cwd, file)
    forgotten = forget_gpu_count(given, file.name, file.origin) if file else ""
    reading = _Reading()
    for key, row in rows().items():
        if key in given:
            _read(reading, row, given[key], cwd)
    options = system_properties(given["vmargs"].text if "vmargs" in given else "")
    _place(reading, arguments, environ, options, cwd)
    _notice(reading, given, environ)
    _notice_restart(reading, arguments, environ, cwd, given, file)
    settings = Settings(
        **reading.values,
        config_file=file.name if file else None,
        forgotten_gpu_count=forgotten,
        foreground=arguments.foreground,
        system_properties=options,
        properties={key: text.text for key, text in given.items() if key not in FIXED_KEYS},
        sources=reading.sources,
        notices=tuple(reading.notices),
    )
    return settings, reading.faults or list(faults(settings))


def choose_file(arguments: CommandLine, environ: Mapping[str, str], cwd: Path) -> ConfigFile | None:
    """`TS_CONFIG_FILE`, else `--ts-config`, else the newest saved one, else `./config.properties` if there is one.

    Raises ConfigurationError if a named file is not a regular file.
    """
    name = environ.get("TS_CONFIG_FILE") or arguments.ts_config
    if name is not None:
        if not (cwd / name).is_file():
            raise ConfigurationError(f"--ts-config file not found: {name}")
        return ConfigFile.at(name, cwd / name)
    if newest := _find_saved(arguments, environ, cwd).newest:
        return ConfigFile.at(str(newest), newest)
    usual = cwd / _USUAL
    return ConfigFile.at(_USUAL, usual) if usual.is_file() else None


def _find_saved(arguments: CommandLine, environ: Mapping[str, str], cwd: Path) -> SavedFiles:
    """Nothing if a file is named, or if none is wanted."""
    if environ.get("TS_CONFIG_FILE") or arguments.ts_config is not None or arguments.no_config_snapshots:
        return SavedFiles(None, ())
    return find_saved(cwd / (environ.get("LOG_LOCATION") or _LOGS) / FOLDER)


def effective(
    arguments: CommandLine, environ: Mapping[str, str], cwd: Path, file: ConfigFile | None
) -> dict[str, Given]:
    """The text of every key that is not left to its default, unknown keys included. Raises ConfigurationError."""
    given = read_properties(file.path, file.name, environ) if file else {}
    if file and file.origin is not Origin.USER:
        forget_derived_store(given)
    _apply_command_line(given, arguments, cwd)
    if "model_store" in given:
        given.setdefault("workflow_store", Given(given["model_store"].text, "key model_store"))
    if "vmargs" in given and system_properties(given["vmargs"].text).get("TS_DEBUG", "").lower() == "true":
        given["debug"] = Given("true", given["vmargs"].source)
    if _is_true(given, "enable_envvars_config"):
        _apply_environment(given, environ)
    if switch := environ.get("TS_OPEN_INFERENCE_PROTOCOL"):
        text = "true" if switch == "oip" else "false"
        given["ts_open_inference_protocol"] = Given(text, "environment TS_OPEN_INFERENCE_PROTOCOL")
    return given


def _apply_command_line(given: dict[str, Given], arguments: CommandLine, cwd: Path) -> None:
    texts = {
        ("model_store", "--model-store"): arguments.model_store,
        ("workflow_store", "--workflow-store"): arguments.workflow_store,
        ("load_models", "--models"): ",".join(arguments.models) if arguments.models else None,
        ("cpp_log_config", "--cpp-log-config"): absolute(arguments.cpp_log_config, cwd),
        ("disable_token_authorization", "--disable-token-auth"): "true" if arguments.disable_token_auth else None,
        ("enable_model_api", "--enable-model-api"): "true" if arguments.enable_model_api else None,
        ("plugins_path", "--plugins-path"): _more_plugins(given.get("plugins_path"), arguments.plugins_path),
    }
    for (key, flag), text in texts.items():
        if text is not None:
            given[key] = Given(text, f"command line {flag}")


def absolute(name: str | None, cwd: Path) -> str | None:
    """A path as absolute text with symbolic links resolved."""
    return None if name is None else os.path.realpath(cwd / name)


def _more_plugins(configured: Given | None, named: str | None) -> str | None:
    """The command line adds plugin paths; it does not replace those of the file."""
    return f"{configured.text}{os.pathsep}{named}" if configured and named else named


def _apply_environment(given: dict[str, Given], environ: Mapping[str, str]) -> None:
    for key, row in rows().items():
        if key == "ts_open_inference_protocol" or (
            key == "allowed_urls" and not _is_true(given, "use_env_allowed_urls")
        ):
            continue
        for name in row.env:
            if name in environ:
                given[key] = Given(environ[name], f"environment {name}")
                break


def _is_true(given: Mapping[str, Given], key: str) -> bool:
    return key in given and given[key].text.strip().lower() == "true"


def _read(reading: _Reading, row: Row, given: Given, cwd: Path) -> None:
    place = f"({row.key}, {given.source})"
    try:
        value = row.form(given.text)
    except Tolerated as doubt:
        value = doubt.value
        notice = replace(doubt.notice, message=f"{doubt.notice.message} {place}", source=given.source)
        reading.notices.append(notice)
    except ValueError as error:
        reading.faults.append(Fault(row.key, given.source, printable(str(error)), row.form.words))
        return
    reading.put(row.key, cwd / value if isinstance(value, Path) else value, given.source)


def _place(
    reading: _Reading, arguments: CommandLine, environ: Mapping[str, str], options: Mapping[str, str], cwd: Path
) -> None:
    """Directories and files that are no keys: environment first, then the `-D` options of vmargs."""
    reading.values |= {"log_location": cwd / _LOGS, "metrics_location": cwd / _LOGS}
    for name, variable, option in (
        ("log_location", "LOG_LOCATION", ""),
        ("metrics_location", "METRICS_LOCATION", ""),
        ("temp_dir", "TEMP", "java.io.tmpdir"),
        ("home", "TS_MODEL_SERVER_HOME", "model_server_home"),
    ):
        if text := environ.get(variable):
            reading.put(name, cwd / text, f"environment {variable}")
        elif text := options.get(option):
            reading.put(name, cwd / text, f"vmargs -D{option}")
    if arguments.no_config_snapshots:
        reading.put("snapshots", False, "command line --no-config-snapshots")
    if log_config := absolute(arguments.log_config, cwd):
        reading.put("log_config", Path(log_config), "command line --log-config")
    elif option := next((name for name in _LOG_CONFIGS if options.get(name)), ""):
        reading.put("log_config", cwd / local_path(options[option]), f"vmargs -D{option}")
    if home := reading.values.get("home"):
        if not home.is_dir():
            reason = printable(f"Model server home not exist: {home}")
            reading.faults.append(Fault("home", reading.sources["home"], reason))
        reading.values.setdefault("metrics_config", home / "ts" / "configs" / "metrics.yaml")


def _notice(reading: _Reading, given: Mapping[str, Given], environ: Mapping[str, str]) -> None:
    if "allowed_urls" not in given:
        reading.notices.append(Notice("WARN", "util.ConfigManager", _OPEN_URLS_WARNING))
    for key, row in rows().items():
        # The launcher reports vmargs itself; use_native_io=true is what there is.
        if row.jvm and key in given and key != "vmargs" and reading.values.get(key) is not True:
            source = given[key].source
            message = f"{key} has no effect: there is no JVM ({source})"
            reading.notices.append(Notice("INFO", "util.ConfigManager", message, source))
    reading.notices += unknown_keys(given, {*rows(), *FIXED_KEYS})
    if _is_true(given, "enable_envvars_config"):
        reading.notices += unknown_variables(environ, {key: row.env for key, row in rows().items()})


def _notice_restart(
    reading: _Reading,
    arguments: CommandLine,
    environ: Mapping[str, str],
    cwd: Path,
    given: Mapping[str, Given],
    file: ConfigFile | None,
) -> None:
    reading.notices += report_choice(_find_saved(arguments, environ, cwd), cwd / _USUAL)
    if file:
        reading.notices += report_content(given, file.name, file.origin)
