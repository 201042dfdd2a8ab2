"""The files that say what is logged and measured: what of them has no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from modelserver.checkup.finding import Finding, remark, warning
from modelserver.logconfig.reading import PYTHON, plan_for
from modelserver.settings.table import Settings
from modelserver.telemetry.definitions import load_definitions
from modelserver.telemetry.java_dates import date_format

_MEND: Final = "Correct it, or leave it out."


def examine_telemetry_files(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """The metric definitions, and the log configuration if there is one."""
    definitions = load_definitions(settings.metrics_config, settings.home / "ts" / "configs" / "metrics.yaml")
    for text in (*definitions.errors, *definitions.warnings):
        yield warning(settings.metrics_config, text.removeprefix(f"{settings.metrics_config}: "), _MEND)
    if settings.log_config is not None and settings.log_config.is_file():
        yield from _log_config(settings, environ, settings.log_config)


def _log_config(settings: Settings, environ: Mapping[str, str], path: Path) -> Iterator[Finding]:
    if path.suffix.lower() in PYTHON:  # reading one opens what it names
        yield remark(path, "a configuration of Python's logging: not read here")
        return
    today = datetime.now().astimezone()
    for complaint in plan_for(settings, environ, lambda pattern: date_format(pattern)(today)).complaints:
        text = complaint.text.removeprefix("StatusLogger ").removeprefix(f"{path}: ")
        yield warning(path, text, _MEND)
