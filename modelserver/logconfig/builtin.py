"""The plan without a configuration: five files, and everything on standard output."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from modelserver.logconfig.plan import (
    ACCESS_LOG,
    MODEL_LOG,
    MODEL_METRICS,
    ROOT,
    SERVER,
    TS_METRICS,
    Appender,
    FileTarget,
    JsonLayout,
    LoggerRule,
    PatternLayout,
    Plan,
    Reference,
    Rolling,
    StreamTarget,
)

LONG: Final = PatternLayout("%d{ISO8601} [%-5p] %t %c - %m%n")
SHORT: Final = PatternLayout("%d{ISO8601} - %m%n")
SIZE_LIMIT: Final = 100 << 20  # bytes
KEPT: Final = 5  # archives of one file

_CONSOLE: Final = "console"
_EVERYTHING: Final = "ts_log"


def builtin_plan(logs: Path, metrics: Path) -> Plan:
    """The default plan with its files in these directories."""
    rules = {SERVER: LoggerRule("DEBUG"), "org.apache": LoggerRule("OFF"), "io.netty": LoggerRule("ERROR")}
    rules[ROOT] = LoggerRule("INFO", (Reference(_CONSOLE), Reference(_EVERYTHING)))
    appenders = [Appender(_CONSOLE, StreamTarget(), LONG), _file(logs, _EVERYTHING, LONG)]
    for logger, level, directory, name, layout in (
        (ACCESS_LOG, "INFO", logs, "access_log", SHORT),
        (MODEL_LOG, "ALL", logs, "model_log", LONG),
        (MODEL_METRICS, "ALL", metrics, "model_metrics", SHORT),
        (TS_METRICS, "ALL", metrics, "ts_metrics", SHORT),
    ):
        appenders.append(_file(directory, name, layout))
        rules[logger] = LoggerRule(level, (Reference(name),))
    return Plan(tuple(appenders), rules, request_debug=False)


def with_level(plan: Plan, level: str) -> Plan:
    """The same with another level of the server's own loggers; lines at DEBUG are wanted then if it is that low."""
    rule = replace(plan.loggers.get(SERVER, LoggerRule(None)), level=level.upper())
    below = {name for name in plan.loggers if name.startswith(f"{SERVER}.")}
    loggers = {name: rule for name, rule in plan.loggers.items() if name not in below}
    return replace(plan, loggers={**loggers, SERVER: rule}, request_debug=True)


def with_json_console(plan: Plan) -> Plan:
    """The same with JSON objects on standard output and standard error."""
    appenders = (
        replace(appender, layout=JsonLayout()) if isinstance(appender.target, StreamTarget) else appender
        for appender in plan.appenders
    )
    return replace(plan, appenders=tuple(appenders))


def without_files(plan: Plan) -> Plan:
    """The same without what goes into files."""
    kept = {appender.name for appender in plan.appenders if not isinstance(appender.target, FileTarget)}
    loggers = {
        name: replace(rule, references=tuple(each for each in rule.references if each.appender in kept))
        for name, rule in plan.loggers.items()
    }
    return replace(plan, appenders=tuple(each for each in plan.appenders if each.name in kept), loggers=loggers)


def _file(directory: Path, name: str, layout: PatternLayout) -> Appender:
    path = (directory / f"{name}.log").absolute()
    pattern = f"{str(path.parent).replace('%', '%%')}/{name}.%d{{dd-MMM}}.log.gz"
    rolling = Rolling(pattern, SIZE_LIMIT, interval=1, keep=KEPT)
    return Appender(name, FileTarget(path, rolling=rolling), layout)
