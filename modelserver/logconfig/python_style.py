"""Configurations for Python's `logging`: its loggers get every event, its handlers write."""

from __future__ import annotations

import json
import logging.config
from pathlib import Path
from typing import Any, Final

import yaml

from modelserver.logconfig.elements import Malformed
from modelserver.logconfig.failures import Failures, reason
from modelserver.logconfig.plan import ROOT, Appender, LoggerRule, PatternLayout, Plan, PythonTarget, Reference

_PLAN: Final = Plan(
    (Appender("python", PythonTarget(), PatternLayout("")),),
    {ROOT: LoggerRule("ALL", (Reference("python"),))},
)


def configure(path: Path) -> Plan:
    """Set up Python's logging by a file: `.yaml`, `.yml`, `.json` for dictConfig, `.ini`, `.conf` for fileConfig.

    The plan leads everything there. Raises Malformed.
    """
    try:
        if path.suffix.lower() in (".ini", ".conf"):
            logging.config.fileConfig(path, disable_existing_loggers=False, encoding="utf-8")
        else:
            logging.config.dictConfig(_dictionary(path))
    except Exception as error:  # whatever handlers raise that the configuration names
        raise Malformed(reason(error)) from error
    _quieten()
    return _PLAN


def _dictionary(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    if not isinstance(content, dict):
        raise ValueError("it holds no mapping")
    return {"version": 1, "disable_existing_loggers": False, **content}


def _quieten() -> None:
    """A handler that cannot write says so once an hour; by itself it would print a traceback per event."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", []):  # names between loggers have none
            setattr(handler, "handleError", Failures(handler).report)  # noqa: B010 (assigning it fails type checks)
