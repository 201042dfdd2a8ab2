"""A plan put to work: which lines an event of a logger and level becomes, and who gets them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from modelserver.logconfig import plan as plans
from modelserver.logconfig.levels import RANKS, level_rank
from modelserver.logconfig.plan import ROOT, Appender, LoggerRule, NoTarget, Plan, PythonTarget, Reference
from modelserver.telemetry.json_layouts import JsonLines, MetricObjects, QueryLog
from modelserver.telemetry.layouts import Layout
from modelserver.telemetry.patterns import Pattern
from modelserver.telemetry.python_loggers import PythonLoggers, is_enabled

_REMEMBERED: Final = 4096  # routes; names of loggers come from libraries, too


@dataclass(frozen=True)
class Sink:
    """Appenders that get the same bytes at any time: rendered once, written by each."""

    layout: Layout
    appenders: tuple[Appender, ...]


class Routes:
    """From loggers and levels to sinks, which have numbers."""

    def __init__(self, plan: Plan) -> None:
        self.request_debug = plan.request_debug
        self._rules = plan.loggers
        self.python = any(isinstance(appender.target, PythonTarget) for appender in plan.appenders)
        groups = _groups(plan)
        self.sinks = tuple(Sink(_compiled(group[0]), tuple(group)) for group in groups)
        self.detailed = any(not sink.layout.plain for sink in self.sinks)  # some sink wants more than lines of text
        self._numbers = {appender.name: number for number, group in enumerate(groups) for appender in group}
        self._thresholds = {appender.name: level_rank(appender.threshold) for group in groups for appender in group}
        self._found: dict[tuple[str, str], tuple[int, ...]] = {}

    def find(self, logger: str, level: str) -> tuple[int, ...]:
        """The sinks of an event, each once."""
        found = self._found.get((logger, level))
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            found = self._found[logger, level] = self._resolve(logger, level_rank(level))
        return found

    def _resolve(self, logger: str, rank: int) -> tuple[int, ...]:
        rules = list(self._lineage(logger))
        lowest = next((rule.level for rule in rules if rule.level is not None), "ERROR")
        if rank < level_rank(lowest) or (self.python and not is_enabled(logger, rank)):
            return ()
        passing = [each.appender for each in _references(rules) if rank >= level_rank(each.level)]
        return tuple(
            sorted(
                {self._numbers[name] for name in passing if name in self._numbers and rank >= self._thresholds[name]}
            )
        )

    def _lineage(self, logger: str) -> Iterator[LoggerRule]:
        """The rules of a logger, the nearest first."""
        name = logger
        while name:
            if name in self._rules:
                yield self._rules[name]
            name = name.rpartition(".")[0]
        if ROOT in self._rules:
            yield self._rules[ROOT]


def _references(rules: list[LoggerRule]) -> Iterator[Reference]:
    for rule in rules:
        yield from rule.references
        if not rule.additive:
            return


def _groups(plan: Plan) -> list[list[Appender]]:
    """Appenders that share layout, threshold and every reference to them."""
    groups: dict[object, list[Appender]] = {}
    for appender in plan.appenders:
        if isinstance(appender.target, NoTarget):
            continue
        references = tuple(
            (name, min(ranks))
            for name, rule in plan.loggers.items()
            if (ranks := [RANKS[each.level] for each in rule.references if each.appender == appender.name])
        )
        kind = PythonTarget if isinstance(appender.target, PythonTarget) else appender.layout
        groups.setdefault((kind, appender.threshold, references), []).append(appender)
    return list(groups.values())


def _compiled(appender: Appender) -> Layout:
    if isinstance(appender.target, PythonTarget):
        return PythonLoggers()
    match appender.layout:
        case plans.PatternLayout(pattern):
            return Pattern(pattern)
        case plans.JsonLayout():
            return JsonLines()
        case plans.MetricJsonLayout():
            return MetricObjects()
        case plans.QueryLogLayout():
            return QueryLog()
