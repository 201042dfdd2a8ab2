"""From the tree of a log4j2 configuration to a plan. What has no meaning here costs a complaint, never the start."""

from __future__ import annotations

from modelserver.logconfig.appenders import BARE, Appenders
from modelserver.logconfig.elements import Element, Malformed
from modelserver.logconfig.lookups import Lookups
from modelserver.logconfig.plan import ROOT, Appender, LoggerRule, Plan, Reference, StreamTarget
from modelserver.logconfig.texts import Texts

_LAST_RESORT = Appender("DefaultConsole", StreamTarget(), BARE)


def read_configuration(root: Element, lookups: Lookups) -> Plan:
    """The plan of a document. Raises Malformed if it is none of log4j2's."""
    if root.kind != "configuration":
        raise Malformed(f"{root.place}: <{root.kind}> where <Configuration> is expected")
    texts = Texts(lookups)
    appenders = Appenders(texts)
    for element in root.children:
        if element.kind not in ("properties", "appenders", "loggers", "status"):
            texts.complain(element, f"<{element.kind}> has no effect")
    _read_properties(root, lookups)
    for group in root.all("appenders"):
        for element in group.children:
            appenders.read(element, texts.get(element, "name"))
    rules = _read_loggers(root, texts, appenders)
    if rules:
        return Plan(appenders.found, rules, complaints=tuple(texts.complaints))
    texts.complain(root, "there are no loggers, so nothing is logged below ERROR")
    rules = {ROOT: LoggerRule("ERROR", (Reference(_LAST_RESORT.name),))}
    return Plan((_LAST_RESORT,), rules, complaints=tuple(texts.complaints))


def _read_properties(root: Element, lookups: Lookups) -> None:
    """Names for texts."""
    for group in root.all("properties"):
        for each in group.all("property"):
            lookups.properties[each.get("name")] = each.attributes.get("value", each.text.strip())


def _read_loggers(root: Element, texts: Texts, appenders: Appenders) -> dict[str, LoggerRule]:
    """The rules by the names of their loggers."""
    rules: dict[str, LoggerRule] = {}
    for group in root.all("loggers"):
        for element in group.children:
            if element.kind in ("root", "asyncroot"):
                rules[ROOT] = _read_rule(element, texts, appenders)
            elif element.kind in ("logger", "asynclogger"):
                rules[texts.get(element, "name")] = _read_rule(element, texts, appenders)
            else:
                texts.complain(element, f"<{element.kind}> has no effect")
    return rules


def _read_rule(element: Element, texts: Texts, appenders: Appenders) -> LoggerRule:
    level = texts.lowest_level(element, texts.level(element))
    references = [each for reference in appenders.references(element) for each in appenders.expand(element, reference)]
    return LoggerRule(level, tuple(references), texts.flag(element, "additivity", default=True))
